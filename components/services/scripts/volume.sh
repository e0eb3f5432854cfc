#!/bin/bash
# Create the volume $NAME, unless it is there.
set -eu
docker volume create --label "calico-lab.stack=$STACK" "$NAME" >/dev/null
