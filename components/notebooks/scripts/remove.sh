#!/bin/bash
# Remove the container $CONTAINER and its secrets. Its volume stays.
set -eu
docker container rm --force "$CONTAINER" >/dev/null 2>&1 || true
rm -rf "/etc/calico-lab/notebooks/$CONTAINER"
# The folder of shared files stays where there are any.
for folder in /etc/calico-lab/notebooks /etc/calico-lab /var/lib/calico-lab-shared; do
    [ ! -d "$folder" ] || rmdir --ignore-fail-on-non-empty "$folder"
done
