#!/bin/bash
# Keep the files of the volume $VOLUME in a folder that only root reads, remove the volume, and print the folder. As a
# volume they would be backed up as the work of the notebook, which is elsewhere and has gone on.
set -eu
kept=/var/lib/calico-lab-left/$VOLUME-$(date --utc +%Y%m%dT%H%M%SZ)
folder=$(docker volume inspect --format '{{.Mountpoint}}' "$VOLUME" 2>/dev/null) || exit 0
install -d -m 0700 "${kept%/*}"
# A copy and not a move, because the folder may be on another file system, and a move may be interrupted.
rm -rf "$kept.part"
cp -a "$folder" "$kept.part"
mv "$kept.part" "$kept"
docker volume rm "$VOLUME" >/dev/null
echo "$kept"
