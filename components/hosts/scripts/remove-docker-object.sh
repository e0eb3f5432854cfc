#!/bin/bash
# Remove the $KIND $NAME from the engine. A container that runs is stopped.
set -eu
force=()
if [ "$KIND" = container ]; then
    force=(--force)
    docker container stop "$NAME" >/dev/null 2>&1 || true
fi
said=$(docker "$KIND" rm "${force[@]}" "$NAME" 2>&1) && exit 0
case "$said" in
*"o such $KIND"* | *"$KIND $NAME not found"*) ;;
*) echo "$said" >&2 && exit 1 ;;
esac
