#!/bin/bash
# Sourced by the scripts that use Calico's datastore: exports the settings in calico.env, and defines calicoctl, whose
# calls end after $CALICOCTL_SECONDS if that is set.
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/calico/calico.env || return
set +a
# timeout(1) takes 0 as no limit.
calicoctl() {
    timeout "${CALICOCTL_SECONDS-0}" /opt/calico-lab/calico/bin/calicoctl --allow-version-mismatch "$@"
}
