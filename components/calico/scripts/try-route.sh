#!/bin/bash
# Try on this host the route that makes all of $CIDR unreachable but for containers, before the network installs it for
# good. $STEP "install" arms a rollback timer of $SECONDS_ALLOWED and installs the route; "confirm", which has to come
# over a connection that was made after that, takes both away again. Status 3 means that the timer was first.
set -eu
unit=calico-lab-try-route
# By its metric it is not that of a network that is there already (calico-lab-calico-startup.service).
mark=(proto kernel metric 65534)
disarm() { systemctl stop "$unit.timer" 2>/dev/null || true; }
case $STEP in
install)
    # A trial that was cut off may have left another route, whose timer goes.
    disarm
    ip route flush type unreachable "${mark[@]}"
    # A unit of systemd, not a child of the SSH session: it fires although the session is gone.
    systemd-run --quiet --collect --unit="$unit" --on-active="$SECONDS_ALLOWED" --timer-property=AccuracySec=100ms \
        "$(command -v ip)" route flush type unreachable "${mark[@]}"
    ip route add unreachable "$CIDR" "${mark[@]}"
    ;;
confirm)
    # The route goes first: a confirmation that comes before it, or is cut off, leaves it to the timer.
    ip route delete unreachable "$CIDR" "${mark[@]}" 2>/dev/null || exit 3
    disarm
    ;;
esac
