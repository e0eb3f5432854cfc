#!/bin/bash
# Build image $IMAGE from folder $CONTEXT on the controller's Docker engine, with the variables $BUILD_ARGUMENTS. Load it
# into the engine of $HOST unless it is there, name it $IMAGE there, and print the ID that it has there.
# The ID says which image is meant: another lab that builds on the same engine gives its images the same names.
set -eu -o pipefail

docker_there() { ssh -F "$SSH_CONFIG" "$DESTINATION" docker "$@"; }

fail() {
    echo "$HOST: could not load the image $IMAGE there from the controller, see above;" \
        "whether there is room: ssh -F $SSH_CONFIG $HOST df -h /var/lib/docker" >&2
    exit 1
}

build() {
    local arguments=() name log
    for name in $BUILD_ARGUMENTS; do arguments+=(--build-arg "$name"); done
    log=$(mktemp)
    # Debian packages no buildx, which the other builder needs.
    if ! DOCKER_BUILDKIT=0 docker build --iidfile "$log.id" --tag "$IMAGE" "${arguments[@]}" "$CONTEXT" 2>&1 |
        tee "$log" | awk -v image="$IMAGE" '/^Step / { print image ": " $0; fflush() }' >&2; then
        tail -n 20 "$log" >&2
        rm -f "$log" "$log.id"
        echo "the image $IMAGE could not be built from $CONTEXT, see above; then run 'pulumi up' again" >&2
        return 1
    fi
    cat "$log.id"
    rm -f "$log" "$log.id"
}

# Two builds of one folder at once would not find each other's layers.
exec 9<"$CONTEXT"
flock 9
built=$(build)
flock -u 9
id=$built
if ! docker_there image inspect "$built" >/dev/null 2>&1; then
    loaded=$(docker image save "$built" | docker_there image load --quiet) || fail
    # An engine with the containerd image store counts IDs differently: the host's own word is what counts.
    id=${loaded#Loaded image ID: }
fi
docker_there image tag "$id" "$IMAGE" || fail
echo "$id"
