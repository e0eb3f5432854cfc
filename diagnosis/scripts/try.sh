#!/bin/bash
# Try to open TCP to $DESTINATION:$PORT. Prints what came: open, refused (an answer that says no), or silent (none).
set -eu

# shellcheck disable=SC2016 # for the inner shell
if timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$DESTINATION" "$PORT" </dev/null 2>/dev/null; then
    echo open
elif [ $? = 124 ]; then
    echo silent
else
    echo refused
fi
