#!/bin/bash
# Bring the image $IMAGE_ID from the controller's Docker engine to that of $HOST, unless it is there; name it $IMAGE
# there, and print the id that it has there.
# It is asked for by its id: another lab that builds on the same engine gives its images the same names.
set -eu -o pipefail

docker_there() { ssh -F "$SSH_CONFIG" "$DESTINATION" docker "$@"; }

fail() {
    echo "$HOST: could not bring the image $IMAGE there from the controller, see above;" \
        "whether there is room: ssh -F $SSH_CONFIG $HOST df -h /var/lib/docker" >&2
    exit 1
}

id=$IMAGE_ID
if ! docker_there image inspect "$IMAGE_ID" >/dev/null 2>&1; then
    loaded=$(docker image save "$IMAGE_ID" | docker_there image load --quiet) || fail
    # An engine with the containerd image store counts ids differently: the host's own word is what counts.
    id=${loaded#Loaded image ID: }
fi
docker_there image tag "$id" "$IMAGE" || fail
echo "$id"
