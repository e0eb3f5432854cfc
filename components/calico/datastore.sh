#!/bin/bash
# Write the resources on standard input into Calico's datastore, and drop the hosts that are none of $NODES.
set -eu
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/calico/calico.env
set +a
calicoctl() { /opt/calico-lab/calico/bin/calicoctl --allow-version-mismatch "$@"; }

if ! said=$(calicoctl apply -f - 2>&1); then
    echo "$HOST: calico: the settings of the network were not taken: $said" >&2
    exit 1
fi
# Without this, every other host would wait for the BGP session of one that is gone.
for node in $(calicoctl get nodes -o custom-columns=NAME | tail -n +2); do
    case " $NODES " in
    *" $node "*) ;;
    *) calicoctl delete node "$node" >/dev/null ;;
    esac
done
