#!/bin/bash
# Apply the network policy on standard input to Calico's datastore. It replaces an earlier one of the same name.
set -eu
# shellcheck source=components/calico/scripts/environment.sh
. /etc/calico-lab/calico/environment.sh
if ! error=$(calicoctl apply -f - 2>&1); then
    echo "$HOST: calico: network policy $POLICY was rejected: $error" >&2
    exit 1
fi
