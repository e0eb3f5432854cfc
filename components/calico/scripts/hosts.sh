#!/bin/bash
# Write a GlobalNetworkSet for each host in $HOSTS ("<name>=<address> ...") to Calico's datastore, because network
# policies select hosts by its label $HOST_LABEL. The set has the host's address and the addresses of its tunnel
# interfaces.
set -eu
# shellcheck source=components/calico/scripts/environment.sh
. /etc/calico-lab/calico/environment.sh

template='{{range .}}{{range .Items}}{{.Name}}={{.Spec.IPv4VXLANTunnelAddr}}
{{.Name}}={{with .Spec.Wireguard}}{{.InterfaceIPv4Address}}{{end}}
{{end}}{{end}}'
tunnels=$(calicoctl get nodes -o go-template="$template")
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
        printf '%s\n' "$entry" "$tunnels" | sed -n "s/^$name=\(.\{1,\}\)$/  - \1\/32/p"
    done
)
if ! error=$(calicoctl apply -f - <<<"$sets" 2>&1); then
    echo "$HOST: calico: the addresses of the hosts were rejected: $error" >&2
    exit 1
fi
