#!/bin/bash
# Apply network policy $POLICY on standard input to Calico's datastore, after its tier if it has one of its own. It replaces
# an earlier one of the same name.
set -eu
# shellcheck source=components/calico/scripts/environment.sh
. /etc/calico-lab/calico/environment.sh
if ! error=$(calicoctl apply -f - 2>&1); then
    echo "$HOST: calico: network policy $POLICY was rejected: $error" >&2
    exit 1
fi
