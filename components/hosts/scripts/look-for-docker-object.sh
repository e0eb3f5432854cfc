#!/bin/bash
# Print `gone` if the engine has no $KIND $NAME, or if that is a container that does not run.
set -eu
format=true
[ "$KIND" != container ] || format='{{.State.Running}}'
if said=$(docker "$KIND" inspect --format "$format" "$NAME" 2>&1); then
    [ "$said" = true ] || echo gone
    exit 0
fi
case "$said" in
*"o such "* | *"not found"*) echo gone ;;
*) echo "$said" >&2 && exit 1 ;;
esac
