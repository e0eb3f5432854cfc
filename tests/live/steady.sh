#!/bin/bash
# Start a container $NAME with address $ADDRESS on network $NETWORK that comes back whatever happens.
set -eu
docker rm --force "$NAME" >/dev/null 2>&1 || true
docker run --detach --name "$NAME" --network "$NETWORK" --ip "$ADDRESS" --restart always --volume /usr:/usr:ro \
    --label org.projectcalico.label.churn=steady --label calico-lab.churn calico-lab-guest sleep infinity >/dev/null
