#!/bin/bash
# Start container $NAME on $NETWORK with label $LABEL again and again, $TIMES times. Each time it sends to each of $TARGETS
# from its start on, by ping, by TCP to port 5000 and by UDP to port 5001. Prints "<target> <protocol>" for what came
# through; by UDP the container's name is sent, and whether it comes is for the targets to say (heard.sh).
set -eu
# shellcheck disable=SC2016 # the container's shell expands it
probe='
for target in $1; do
    for _ in 1 2 3 4 5 6; do echo "$0" | nc -u -q 0 -w 1 "$target" 5001; done >/dev/null 2>&1 &
    { ! ping -c 40 -i 0.02 -W 1 "$target" >/dev/null || echo "$target ping"; } &
    for _ in 1 2 3; do { ! nc -z -w 1 "$target" 5000 || echo "$target tcp"; }; done &
done
wait'
for _ in $(seq "$TIMES"); do
    docker rm --force "$NAME" >/dev/null 2>&1 || true
    docker run --init --name "$NAME" --network "$NETWORK" --label "$LABEL" --volume /usr:/usr:ro \
        --volume /etc/alternatives:/etc/alternatives:ro calico-lab-guest sh -c "$probe" "$NAME" "$TARGETS"
done
docker rm --force "$NAME" >/dev/null
