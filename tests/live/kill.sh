#!/bin/bash
# Kill the unit $UNIT, and with it the container $CONTAINER where it is given. What is down already stays so.
set -u
pid=
[ -z "${CONTAINER:-}" ] || pid=$(timeout 20 docker inspect --format '{{.State.Pid}}' "$CONTAINER")
systemctl kill --kill-who=main --signal=KILL "$UNIT"
[ "${pid:-0}" = 0 ] || kill -KILL "$pid"
