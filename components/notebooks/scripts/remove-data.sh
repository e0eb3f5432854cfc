#!/bin/bash
# Remove the volume $VOLUME, and the container $CONTAINER, which is stopped by now.
set -eu
docker container rm --force "$CONTAINER" >/dev/null 2>&1 || true
! docker volume inspect "$VOLUME" >/dev/null 2>&1 || docker volume rm "$VOLUME" >/dev/null
