#!/bin/bash
# Write the resources on standard input into Calico's datastore, drop the hosts that are none of $NODES and the
# resources $ABSENT ("<kind>/<name> ..."), and make those of $NODES that are $REFLECTORS route reflectors.
set -eu
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/calico/calico.env
set +a
calicoctl() { /opt/calico-lab/calico/bin/calicoctl --allow-version-mismatch "$@"; }
refused() {
    echo "$HOST: calico: the settings of the network were not taken: $1" >&2
    exit 1
}

there=" $(calicoctl get nodes -o custom-columns=NAME | tail -n +2 | tr '\n' ' ')"
marked="{{range .}}{{range .Items}}{{if index .Labels \"$REFLECTOR_LABEL\"}}{{.Name}} {{end}}{{end}}{{end}}"
reflecting=" $(calicoctl get nodes -o go-template="$marked")"
for node in $NODES; do
    case " $REFLECTORS " in
    *" $node "*)
        # One that has not been started yet has no node; what else it says of itself, it adds then.
        [[ $there == *" $node "* ]] ||
            printf 'apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: %s}\n' "$node" |
            calicoctl create --skip-exists -f - >/dev/null
        label='"true"' cluster=$CLUSTER_ID
        ;;
    *)
        [[ $reflecting == *" $node "* ]] || continue
        label=null cluster=
        ;;
    esac
    patch="{\"metadata\":{\"labels\":{\"$REFLECTOR_LABEL\":$label}},"
    patch+="\"spec\":{\"bgp\":{\"routeReflectorClusterID\":\"$cluster\"}}}"
    said=$(calicoctl patch node "$node" --patch="$patch" 2>&1) || refused "$said"
done
said=$(calicoctl apply -f - 2>&1) || refused "$said"
for resource in $ABSENT; do
    said=$(calicoctl delete --skip-not-exists "${resource%%/*}" "${resource#*/}" 2>&1) || refused "$said"
done
# Without this, every other host would wait for the BGP session of one that is gone.
for node in $there; do
    case " $NODES " in
    *" $node "*) ;;
    *) calicoctl delete node "$node" >/dev/null ;;
    esac
done
