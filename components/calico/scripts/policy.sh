#!/bin/bash
# Write the network policy on standard input into Calico's datastore, in the place of an earlier one of its name.
set -eu
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/calico/calico.env
set +a
if ! said=$(/opt/calico-lab/calico/bin/calicoctl --allow-version-mismatch apply -f - 2>&1); then
    echo "$HOST: calico: network policy $POLICY was not taken: $said" >&2
    exit 1
fi
