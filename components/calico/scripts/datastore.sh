#!/bin/bash
# Apply the resources on standard input to Calico's datastore, and delete the resources $ABSENT ("<kind>/<name> ...")
# and the nodes that are not in $NODES. Nodes in $REFLECTORS become route reflectors; the others stop being route
# reflectors.
set -eu
# shellcheck source=components/calico/scripts/environment.sh
. /etc/calico-lab/calico/environment.sh
fail() {
    echo "$HOST: calico: the network settings were rejected: $1" >&2
    exit 1
}

existing=" $(calicoctl get nodes -o custom-columns=NAME | tail -n +2 | tr '\n' ' ')"
template="{{range .}}{{range .Items}}{{if index .Labels \"$REFLECTOR_LABEL\"}}{{.Name}} {{end}}{{end}}{{end}}"
reflecting=" $(calicoctl get nodes -o go-template="$template")"
for node in $NODES; do
    case " $REFLECTORS " in
    *" $node "*)
        # A host whose services have never started has no node. They add the rest of its fields at their start.
        [[ $existing == *" $node "* ]] ||
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
    error=$(calicoctl patch node "$node" --patch="$patch" 2>&1) || fail "$error"
done
error=$(calicoctl apply -f - 2>&1) || fail "$error"
for resource in $ABSENT; do
    error=$(calicoctl delete --skip-not-exists "${resource%%/*}" "${resource#*/}" 2>&1) || fail "$error"
done
# The other hosts would wait for a BGP session with the node of a removed host.
for node in $existing; do
    case " $NODES " in
    *" $node "*) ;;
    *) calicoctl delete node "$node" >/dev/null ;;
    esac
done
