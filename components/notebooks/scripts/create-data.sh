#!/bin/bash
# Create the volume $VOLUME of the notebook $NOTEBOOK, unless it is there.
set -eu
docker volume create --label "calico-lab.stack=$STACK" --label "calico-lab.notebook=$NOTEBOOK" "$VOLUME" >/dev/null
