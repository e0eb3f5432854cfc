#!/bin/bash
# Create the Docker network $NAME of Calico's pool $CIDR, unless it is there. $MTU is that of its containers, or empty.
# The labels say whose it is, and of which pool.
set -eu
if [ -n "$(docker network ls --quiet --filter "name=^$NAME\$")" ]; then
    format='{{index .Labels "calico-lab.stack"}} {{index .Options "com.docker.network.driver.mtu"}} '
    format+='{{index .Labels "calico-lab.pool"}}'
    there=$(docker network inspect --format "$format" "$NAME")
    [ "$there" != "$STACK $MTU $POOL" ] || exit 0
    if [ "${there%% *}" != "$STACK" ]; then
        echo "another network is called $NAME; if it is not needed, run on $HOST: docker network rm $NAME" >&2
        exit 1
    fi
    # An interrupted run with other settings has left it.
    docker network rm "$NAME" >/dev/null
fi
options=()
[ -z "$MTU" ] || options=(--opt "com.docker.network.driver.mtu=$MTU")
docker network create --driver calico --ipam-driver calico-ipam --subnet "$CIDR" "${options[@]}" \
    --label "calico-lab.pool=$POOL" --label "calico-lab.stack=$STACK" "$NAME" >/dev/null
