#!/bin/bash
# Move all files of the volume $VOLUME into a folder $ASIDE next to it, where a restore does not touch them.
set -eu
folder=$(docker volume inspect --format '{{.Mountpoint}}' "$VOLUME")
beside=$(dirname "$folder")/$ASIDE
if [ -d "$beside" ]; then
    # A restore was interrupted. The files that were set aside are the work; the others are parts of a backup.
    find "$folder" -mindepth 1 -delete
else
    # The name changes last, so that a folder of this name has all files.
    mkdir -p "$beside.new"
    find "$folder" -mindepth 1 -maxdepth 1 -exec mv --target-directory "$beside.new" {} +
    mv "$beside.new" "$beside"
fi
