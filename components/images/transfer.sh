#!/bin/bash
# Bring the image $IMAGE_ID to the Docker engine of $HOST, from that of $SOURCE or, when that is empty, from the
# controller's own, unless it is there; name it $IMAGE there, and print the id that it has there.
# It is asked for by its id: another lab that builds on the same engine gives its images the same names.
set -eu -o pipefail

docker_at() {
    local engine=$1
    shift
    if [ -n "$engine" ]; then ssh -F "$SSH_CONFIG" "$engine" docker "$@"; else docker "$@"; fi
}

fail() {
    echo "$HOST: could not bring the image $IMAGE there from ${SOURCE:-the controller}, see above;" \
        "whether there is room: ssh -F $SSH_CONFIG $HOST df -h /var/lib/docker" >&2
    exit 1
}

id=$IMAGE_ID
if ! docker_at "$HOST" image inspect "$IMAGE_ID" >/dev/null 2>&1; then
    loaded=$(docker_at "$SOURCE" image save "$IMAGE_ID" | docker_at "$HOST" image load --quiet) || fail
    # An engine with the containerd image store counts ids differently: the host's own word is what counts.
    id=${loaded#Loaded image ID: }
fi
docker_at "$HOST" image tag "$id" "$IMAGE" || fail
echo "$id"
