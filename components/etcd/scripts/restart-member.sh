#!/bin/bash
# Restart this host's member with its new configuration. It ends when the member has found a quorum (Type=notify), or
# at once if $WAIT is empty.
set -eu
if [ -n "$WAIT" ]; then wait=; else wait=--no-block; fi
# shellcheck disable=SC2086 # an option or none
exec systemctl restart $wait calico-lab-etcd.service
