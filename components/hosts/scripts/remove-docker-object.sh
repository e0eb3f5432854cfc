#!/bin/bash
# Remove the $KIND $NAME from the engine; a container that runs too.
set -eu
force=()
[ "$KIND" != container ] || force=(--force)
said=$(docker "$KIND" rm "${force[@]}" "$NAME" 2>&1) && exit 0
case "$said" in
*"o such "* | *"not found"*) ;;
*) echo "$said" >&2 && exit 1 ;;
esac
