#!/bin/bash
# Stop the container $CONTAINER, so that nothing writes into its volume.
set -eu
! docker container inspect "$CONTAINER" >/dev/null 2>&1 || docker container stop "$CONTAINER" >/dev/null
