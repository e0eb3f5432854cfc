#!/bin/bash
# Delete network policy $POLICY from Calico's datastore, and then its tier if it has one of its own. Such a policy is
# called "<tier>.<name>".
set -eu
# shellcheck source=components/calico/scripts/environment.sh
. /etc/calico-lab/calico/environment.sh
CALICOCTL_SECONDS=30
tier=${POLICY%%.*}
delete() { calicoctl delete --skip-not-exists "$@" 2>&1; }
if ! error=$(delete globalnetworkpolicy "$POLICY" && { [ "$tier" = "$POLICY" ] || delete tier "$tier"; }); then
    echo "$HOST: calico: network policy $POLICY stays in the datastore: $error" >&2
    exit 1
fi
