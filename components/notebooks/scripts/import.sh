#!/bin/bash
# Replace the files of the volume $VOLUME by those of the tar archive on standard input.
set -eu
folder=$(docker volume inspect --format '{{.Mountpoint}}' "$VOLUME")
# What an import that was interrupted has left.
find "$folder" -mindepth 1 -delete
exec tar --extract --directory "$folder" --numeric-owner --same-permissions --same-owner --xattrs
