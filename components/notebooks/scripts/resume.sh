#!/bin/bash
# Start the container $CONTAINER again.
set -eu
docker container start "$CONTAINER" >/dev/null
