#!/bin/bash
# Starts a container on each of $NETWORKS, and on a bridge network $OWN that is created for it, in $ROUNDS rounds. Prints
# the network and the time of `docker run` in µs.
set -eu
name=calico-lab-start
order="$NETWORKS $OWN"
trap 'docker rm --force "$name" >/dev/null 2>&1 || true; docker network rm "$OWN" >/dev/null' EXIT
docker network create "$OWN" >/dev/null
for _ in $(seq "$ROUNDS"); do
    for network in $order; do
        started=$(date +%s%N)
        docker run --detach --name "$name" --network "$network" --volume /usr:/usr:ro calico-lab-guest \
            sleep infinity >/dev/null
        echo "$network $((($(date +%s%N) - started) / 1000))"
        docker rm --force "$name" >/dev/null
    done
    # The next round has the reverse order.
    order=$(tr ' ' '\n' <<<"$order" | tac | paste -s -d ' ')
done
