#!/bin/bash
# Unpack the archive $ARCHIVE into the folder that all notebooks of this host have as `shared`, and remove it. Files of
# the same name are replaced.
set -eu
umask 022
folder=/var/lib/calico-lab-shared
trap 'rm -f "$ARCHIVE"' EXIT
[ -d "$folder" ] || install -d -m 0755 -o 8888 -g 8888 "$folder"
# As the owner of the folder and not as root, because notebooks that may write there could have put links into it.
setpriv --reuid 8888 --regid 8888 --clear-groups \
    tar --extract --directory "$folder" <"$ARCHIVE"
