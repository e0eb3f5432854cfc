#!/bin/bash
# Remove the files that place-files.sh remembered under $NAME, and the lab's own folders above them that are empty now.
set -eu
record=/var/lib/calico-lab/files/$NAME
[ -e "$record" ] || exit 0
while IFS= read -r path; do
    rm -f "$path"
    folder=$(dirname "$path")
    while case "$folder" in */calico-lab/*) true ;; *) false ;; esac; do
        rmdir "$folder" 2>/dev/null || break
        folder=$(dirname "$folder")
    done
done <"$record"
rm -f "$record"
