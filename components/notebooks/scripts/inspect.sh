#!/bin/bash
# Fail if there is no container $CONTAINER.
exec docker container inspect "$CONTAINER"
