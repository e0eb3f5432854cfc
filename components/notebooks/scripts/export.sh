#!/bin/bash
# Print the files of the volume $VOLUME as a tar archive (tar(1)).
set -eu
folder=$(docker volume inspect --format '{{.Mountpoint}}' "$VOLUME")
exec tar --create --directory "$folder" --numeric-owner --xattrs .
