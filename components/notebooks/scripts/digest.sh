#!/bin/bash
# Print a digest of the volume $VOLUME: of the names, contents, owners, modes and times of its files.
set -eu -o pipefail
folder=$(docker volume inspect --format '{{.Mountpoint}}' "$VOLUME")
tar --create --directory "$folder" --sort name --numeric-owner --format posix \
    --pax-option 'exthdr.name=%d/%f,delete=atime,delete=ctime' . 2>/dev/null | sha256sum | cut -d ' ' -f 1
