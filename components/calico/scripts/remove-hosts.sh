#!/bin/bash
# Delete the GlobalNetworkSets of the hosts in $HOSTS ("<name>=<address> ...") from Calico's datastore. An etcd without
# a quorum does not stop the removal of the lab.
set -eu
# shellcheck source=components/calico/scripts/environment.sh
. /etc/calico-lab/calico/environment.sh
CALICOCTL_SECONDS=10
for entry in $HOSTS; do
    calicoctl delete --skip-not-exists globalnetworkset "calico-lab-host-${entry%%=*}" >/dev/null ||
        echo "$HOST: calico: calico-lab-host-${entry%%=*} stays in the datastore, which does not answer" >&2
done
