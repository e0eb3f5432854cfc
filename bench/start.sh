#!/bin/bash
# Start a container $TURNS times on each of $NETWORKS, and on a bridge network $OWN that is made for it, by turns. Prints
# the network and how many µs `docker run` took.
set -eu
name=calico-lab-start
order="$NETWORKS $OWN"
trap 'docker rm --force "$name" >/dev/null 2>&1 || true; docker network rm "$OWN" >/dev/null' EXIT
docker network create "$OWN" >/dev/null
for _ in $(seq "$TURNS"); do
    for network in $order; do
        began=$(date +%s%N)
        docker run --detach --name "$name" --network "$network" --volume /usr:/usr:ro calico-lab-guest \
            sleep infinity >/dev/null
        echo "$network $((($(date +%s%N) - began) / 1000))"
        docker rm --force "$name" >/dev/null
    done
    # The other way round in the next turn.
    order=$(tr ' ' '\n' <<<"$order" | tac | paste -s -d ' ')
done
