#!/bin/bash
# Take the addresses of the hosts in $HOSTS out of Calico's datastore.
set -eu
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/calico/calico.env
set +a
for entry in $HOSTS; do
    timeout 10 /opt/calico-lab/calico/bin/calicoctl --allow-version-mismatch \
        delete --skip-not-exists globalnetworkset "calico-lab-host-${entry%%=*}" >/dev/null ||
        echo "$HOST: calico: etcd does not answer" >&2
done
