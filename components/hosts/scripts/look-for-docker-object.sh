#!/bin/bash
# Print `gone` if the engine has no $KIND $NAME, or if that is a container that does not run.
set -eu
format=true
[ "$KIND" != container ] || format='{{.State.Running}}'
if there=$(docker "$KIND" inspect --format "$format" "$NAME" 2>/dev/null); then
    [ "$there" = true ] || echo gone
    exit 0
fi
said=$(docker "$KIND" inspect "$NAME" 2>&1 >/dev/null) && exit 0
case "$said" in
*"o such $KIND"* | *"$KIND $NAME not found"*) echo gone ;;
*) echo "$said" >&2 && exit 1 ;;
esac
