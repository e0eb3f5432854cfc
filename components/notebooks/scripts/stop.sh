#!/bin/bash
# Stop the container $CONTAINER, so that nothing writes into its volume. Print `running` if it ran.
set -eu
state=$(docker container inspect --format '{{.State.Status}}' "$CONTAINER" 2>/dev/null) || exit 0
docker container stop "$CONTAINER" >/dev/null
echo "$state"
