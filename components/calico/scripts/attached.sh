#!/bin/bash
# Before the Docker network $NETWORK is removed from this host: refuse while containers run on it that are not the
# lab's.
set -eu
others=$(docker ps --filter "network=$NETWORK" --format '{{.Names}} {{.Label "calico-lab.stack"}}' |
    awk 'NF == 1 { print $1 }' | paste -s -d ' ')
[ -z "$others" ] || {
    echo "$HOST: containers that are not the lab's run on $NETWORK: $others. End them, or take them off it" \
        "(on $HOST: docker rm --force $others), and give the command again" >&2
    exit 1
}
