#!/bin/bash
# Start the container $CONTAINER again, if there is one.
set -eu
! docker container inspect "$CONTAINER" >/dev/null 2>&1 || docker container start "$CONTAINER" >/dev/null
