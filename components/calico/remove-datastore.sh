#!/bin/bash
# Take the network out of Calico's datastore. An etcd without quorum must not keep the lab from being removed.
set -eu
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/calico/calico.env
set +a
for resource in "ippool $POOL" "felixconfiguration default" "bgpconfiguration default"; do
    # shellcheck disable=SC2086 # a kind and a name
    timeout 10 /opt/calico-lab/calico/bin/calicoctl --allow-version-mismatch \
        delete --skip-not-exists $resource >/dev/null ||
        echo "$HOST: calico: $resource stays in the datastore, which does not answer" >&2
done
