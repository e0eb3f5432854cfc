#!/bin/bash
# Remove the files that place-files.sh recorded under $NAME, and then the lab's folders above them that are empty. A
# file stays if another component has placed it too, or if it is now a program of the host's owner.
set -eu
record=/var/lib/calico-lab/files/$NAME
[ -e "$record" ] || exit 0
exec 9<"$(dirname "$record")"
flock 9
is_the_owners() { case "$1" in /usr/local/bin/*) [ -e "$1" ] && ! grep -qs calico-lab "$1" ;; *) false ;; esac }
is_placed_by_others() { grep -lsxF -e "$1" "$(dirname "$record")"/* | grep -qvxF -e "$record"; }
while IFS= read -r path; do
    if is_the_owners "$path" || is_placed_by_others "$path"; then continue; fi
    rm -f "$path"
    folder=$(dirname "$path")
    while case "$folder" in */calico-lab/*) true ;; *) false ;; esac; do
        rmdir "$folder" 2>/dev/null || break
        folder=$(dirname "$folder")
    done
done <"$record"
rm -f "$record"
