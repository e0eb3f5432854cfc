#!/bin/bash
# Start a container $NAME on network $NETWORK that does nothing, with a $LABEL or none, and print its address. Its
# image is empty: the programs in it are the host's own, so that no image has to be brought to the host to try the
# network.
set -eu
image=calico-lab-guest
if ! docker image inspect "$image" >/dev/null 2>&1; then
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    # Docker puts its init into /sbin, so that one is no link into what is mounted.
    mkdir "$root/tmp" "$root/sbin"
    for folder in bin lib lib64; do
        ln -s "usr/$folder" "$root/$folder"
    done
    tar -C "$root" -c . | docker import - "$image" >/dev/null
fi
docker rm --force "$NAME" >/dev/null 2>&1 || true
docker run --detach --init --name "$NAME" --network "$NETWORK" ${LABEL:+--label "$LABEL"} --volume /usr:/usr:ro \
    --volume /etc/alternatives:/etc/alternatives:ro "$image" sleep infinity >/dev/null
docker inspect --format "{{(index .NetworkSettings.Networks \"$NETWORK\").IPAddress}}" "$NAME"
