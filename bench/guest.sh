#!/bin/bash
# Starts a container $NAME on network $NETWORK that sleeps, with an optional $LABEL, and prints its address. Its image is
# empty and the host's programs are mounted, so that no image has to be copied to the host.
set -eu
image=calico-lab-guest
if ! docker image inspect "$image" >/dev/null 2>&1; then
    root=$(mktemp -d)
    trap 'rm -rf "$root"' EXIT
    # /sbin is a folder and not a link into the read-only mount, because Docker creates its init there.
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
