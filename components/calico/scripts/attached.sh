#!/bin/bash
# Fail if containers that are not the lab's run on the Docker network $NETWORK. Runs before the network is removed.
set -eu
others=$(docker ps --filter "network=$NETWORK" --format '{{.Names}} {{.Label "calico-lab.stack"}}' |
    awk 'NF == 1 { print $1 }' | paste -s -d ' ')
[ -z "$others" ] || {
    echo "$HOST: containers that are not the lab's run on $NETWORK: $others. Remove them, or disconnect them from it" \
        "(on $HOST: docker rm --force $others), and run the command again" >&2
    exit 1
}
