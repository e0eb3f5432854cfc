#!/bin/bash
# Take network policy $POLICY out of Calico's datastore.
set -eu
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/calico/calico.env
set +a
if ! said=$(timeout 30 /opt/calico-lab/calico/bin/calicoctl --allow-version-mismatch \
    delete --skip-not-exists globalnetworkpolicy "$POLICY" 2>&1); then
    echo "$HOST: calico: network policy $POLICY stays in the datastore: $said" >&2
    exit 1
fi
