#!/bin/bash
# Remove the container $CONTAINER and its secrets. Its volume stays.
set -eu
docker container rm --force "$CONTAINER" >/dev/null 2>&1 || true
rm -rf "/etc/calico-lab/notebooks/$CONTAINER"
# The folder of shared files stays where there are any. Other notebooks are removed at the same time, so that a folder
# may go between a check and rmdir.
for folder in /etc/calico-lab/notebooks /etc/calico-lab /var/lib/calico-lab-shared; do
    rmdir "$folder" 2>/dev/null || true
done
