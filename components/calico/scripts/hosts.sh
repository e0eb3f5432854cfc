#!/bin/bash
# Tell Calico the addresses of the hosts, "<name>=<address> ..." in $HOSTS, so that network policies can name them:
# a GlobalNetworkSet each, with the addresses that the host has as an end of tunnels, too.
set -eu
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/calico/calico.env
set +a
calicoctl() { /opt/calico-lab/calico/bin/calicoctl --allow-version-mismatch "$@"; }

tunnels='{{range .}}{{range .Items}}{{.Name}}={{.Spec.IPv4VXLANTunnelAddr}}
{{.Name}}={{with .Spec.Wireguard}}{{.InterfaceIPv4Address}}{{end}}
{{end}}{{end}}'
ends=$(calicoctl get nodes -o go-template="$tunnels")
sets=$(
    for entry in $HOSTS; do
        name=${entry%%=*}
        echo "---"
        echo "apiVersion: projectcalico.org/v3"
        echo "kind: GlobalNetworkSet"
        echo "metadata:"
        echo "  name: calico-lab-host-$name"
        echo "  labels: {$HOST_LABEL: $name}"
        echo "spec:"
        echo "  nets:"
        printf '%s\n' "$entry" "$ends" | sed -n "s/^$name=\(.\{1,\}\)$/  - \1\/32/p"
    done
)
if ! said=$(calicoctl apply -f - <<<"$sets" 2>&1); then
    echo "$HOST: calico: the addresses of the hosts were not taken: $said" >&2
    exit 1
fi
