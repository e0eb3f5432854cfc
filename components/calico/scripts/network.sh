#!/bin/bash
# Create the Docker network $NAME of Calico's pool $CIDR, unless it is there. $MTU is that of its containers, or empty.
# The label says of which pool it is.
set -eu
label=calico-lab.pool
there=$(docker network ls --quiet --filter "name=^$NAME\$")
if [ -n "$there" ]; then
    of=$(docker network inspect --format "{{index .Labels \"$label\"}}" "$NAME")
    [ "$of" != "$POOL" ] || exit 0
    echo "another network is called $NAME; if it is not needed, run on $HOST: docker network rm $NAME" >&2
    exit 1
fi
options=()
[ -z "$MTU" ] || options=(--opt "com.docker.network.driver.mtu=$MTU")
docker network create --driver calico --ipam-driver calico-ipam --subnet "$CIDR" "${options[@]}" \
    --label "$label=$POOL" --label "calico-lab.stack=$STACK" "$NAME" >/dev/null
