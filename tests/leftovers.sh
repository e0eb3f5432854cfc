#!/bin/bash
# leftovers.sh [GROUP]: of one group of tests, or of all.
# Remove the containers, networks and volumes that tests have created in the engine, and that a killed run has left.
set -euo pipefail
docker ps --all --quiet --filter "label=calico-lab.test${1:+=$1}" | xargs -r docker rm --force --volumes >/dev/null
docker network ls --quiet --filter "label=calico-lab.test${1:+=$1}" | xargs -r docker network rm >/dev/null
docker volume ls --quiet --filter "label=calico-lab.test${1:+=$1}" | xargs -r docker volume rm >/dev/null
