#!/bin/bash
# Remove the containers, networks and volumes that tests have created in the engine, and that a killed run has left.
set -euo pipefail
docker ps --all --quiet --filter label=calico-lab.test | xargs -r docker rm --force --volumes >/dev/null
docker network ls --quiet --filter label=calico-lab.test | xargs -r docker network rm >/dev/null
docker volume ls --quiet --filter label=calico-lab.test | xargs -r docker volume rm >/dev/null
