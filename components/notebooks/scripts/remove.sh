#!/bin/bash
# Remove the container $CONTAINER and its secrets. Its volume stays.
set -eu
docker container rm --force "$CONTAINER" >/dev/null 2>&1 || true
rm -rf "/etc/calico-lab/notebooks/$CONTAINER"
# The last notebook of a host takes the folders along; the others have the shared one mounted. Several may be removed at
# the same time. The folder of shared files stays where there are any.
if rmdir /etc/calico-lab/notebooks 2>/dev/null; then
    rmdir /etc/calico-lab 2>/dev/null || true
    rmdir /var/lib/calico-lab-shared 2>/dev/null || true
fi
