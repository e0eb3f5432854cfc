#!/bin/bash
# Build image $IMAGE from folder $CONTEXT on the controller's Docker engine, with the variables named in
# $BUILD_ARGUMENTS as build arguments, and with the file $PACKAGES, if it is set, as packages.lock. Load it into the
# engine of $HOST unless it is there already, tag it $IMAGE, and print its ID there. The ID identifies the image, because
# another lab that builds on the same engine uses the same names.
set -eu -o pipefail

host_docker() { ssh -F "$SSH_CONFIG" "$DESTINATION" docker "$@"; }

fail() {
    echo "$HOST: the image $IMAGE could not be loaded from the controller, see above;" \
        "check the free space: ssh -F $SSH_CONFIG $HOST df -h /var/lib/docker" >&2
    exit 1
}

build() {
    local arguments=() name log folder=$CONTEXT
    for name in $BUILD_ARGUMENTS; do arguments+=(--build-arg "$name"); done
    log=$(mktemp)
    if [ -n "${PACKAGES:-}" ]; then
        folder=$log.context
        mkdir "$folder"
        cp -a "$CONTEXT/." "$folder"
        cp "$PACKAGES" "$folder/packages.lock"
    fi
    # The legacy builder, because BuildKit needs buildx, which Debian does not package.
    if ! DOCKER_BUILDKIT=0 docker build --iidfile "$log.id" --tag "$IMAGE" "${arguments[@]}" "$folder" 2>&1 |
        tee "$log" | awk -v image="$IMAGE" '/^Step / { print image ": " $0; fflush() }' >&2; then
        tail -n 20 "$log" >&2
        rm -rf "$log" "$log.id" "$log.context"
        echo "the image $IMAGE could not be built from $CONTEXT, see above; then run 'pulumi up' again" >&2
        return 1
    fi
    cat "$log.id"
    rm -rf "$log" "$log.id" "$log.context"
}

# One build of a folder at a time, because simultaneous builds do not share layers.
exec 9<"$CONTEXT"
flock 9
built=$(build)
flock -u 9
id=$built
if ! host_docker image inspect "$built" >/dev/null 2>&1; then
    loaded=$(docker image save "$built" | host_docker image load --quiet) || fail
    # An engine with the containerd image store computes IDs differently, so the ID that the host prints is used.
    id=${loaded#Loaded image ID: }
fi
host_docker image tag "$id" "$IMAGE" || fail
echo "$id"
