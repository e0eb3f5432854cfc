#!/bin/bash
# What containers $NAMES of this host have heard by UDP since this was asked last: "<sender> <container> udp open", a
# line each. The first time it has them listen, by TCP too.
set -eu
for name in $NAMES; do
    # shellcheck disable=SC2016 # the container's shell expands it
    docker exec "$name" sh -c '
        if [ ! -e /tmp/heard ]; then
            setsid nc -l -k 5000 </dev/null >/dev/null 2>&1 &
            setsid nc -u -l -k 5001 </dev/null >>/tmp/heard 2>/dev/null &
            exit
        fi
        sort -u /tmp/heard | while read -r sender; do echo "$sender $0 udp open"; done
        : >/tmp/heard' "$name" </dev/null
done
