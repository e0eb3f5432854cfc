#!/bin/bash
# Try the route that makes $CIDR unreachable except for containers, before the network installs it. $STEP "install"
# starts a rollback timer of $SECONDS_ALLOWED seconds and installs the route. "confirm" has to arrive over a connection
# that was opened after that, and removes both. Status 3 means that the timer has removed the route already.
set -eu
unit=calico-lab-try-route
# The metric distinguishes it from the route of an installed network (calico-lab-calico-startup.service).
mark=(proto kernel metric 65534)
disarm() { systemctl stop "$unit.timer" 2>/dev/null || true; }
case $STEP in
install)
    # An interrupted trial may have left a route and its timer.
    disarm
    ip route flush type unreachable "${mark[@]}"
    # A timer of systemd fires even if the SSH session has ended.
    systemd-run --quiet --collect --unit="$unit" --on-active="$SECONDS_ALLOWED" --timer-property=AccuracySec=100ms \
        "$(command -v ip)" route flush type unreachable "${mark[@]}"
    ip route add unreachable "$CIDR" "${mark[@]}"
    ;;
confirm)
    # The route is deleted first. If there is none yet, or this script is interrupted, the timer stays active.
    ip route delete unreachable "$CIDR" "${mark[@]}" 2>/dev/null || exit 3
    disarm
    ;;
esac
