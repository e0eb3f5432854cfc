#!/bin/bash
# Give the files that were set aside their places again ($RESTORED is no), or a folder $ASIDE in the volume $VOLUME
# ($RESTORED is yes).
set -eu
folder=$(docker volume inspect --format '{{.Mountpoint}}' "$VOLUME")
beside=$(dirname "$folder")/$ASIDE
[ -d "$beside" ] || exit 0
if [ "$RESTORED" = yes ]; then
    if rmdir "$beside" 2>/dev/null; then exit 0; fi
    chown --reference "$folder" "$beside"
    mv "$beside" "$folder/$ASIDE"
else
    find "$folder" -mindepth 1 -delete
    find "$beside" -mindepth 1 -maxdepth 1 -exec mv --target-directory "$folder" {} +
    rmdir "$beside"
fi
