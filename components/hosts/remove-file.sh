#!/bin/bash
# Remove $FILE, and the folders above it that only the lab had and that are empty now.
set -eu
rm -f "$FILE"
folder=$(dirname "$FILE")
while case "$folder" in */calico-lab/*) true ;; *) false ;; esac; do
    rmdir "$folder" 2>/dev/null || break
    folder=$(dirname "$folder")
done
