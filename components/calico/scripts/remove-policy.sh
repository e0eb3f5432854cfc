#!/bin/bash
# Delete network policy $POLICY from Calico's datastore.
set -eu
# shellcheck source=components/calico/scripts/environment.sh
. /etc/calico-lab/calico/environment.sh
CALICOCTL_SECONDS=30
if ! error=$(calicoctl delete --skip-not-exists globalnetworkpolicy "$POLICY" 2>&1); then
    echo "$HOST: calico: network policy $POLICY stays in the datastore: $error" >&2
    exit 1
fi
