#!/bin/bash
# Place the files on standard input with $MODE and $OWNER, and record them under $NAME. All are written before the first
# is renamed to its path. Files of an earlier record that are not on standard input are removed. Files in /usr/local/bin
# are executable for everyone, and do not replace a program of the host's owner.
set -eu
record=/var/lib/calico-lab/files/$NAME
umask 077
(umask 022 && mkdir -p "$(dirname "$record")")
# The lock, because two components may place and remove the same file at the same time.
exec 9<"$(dirname "$record")"
flock 9
is_program() { case "$1" in /usr/local/bin/*) true ;; *) false ;; esac }
is_the_owners() { is_program "$1" && [ -e "$1" ] && ! grep -qs calico-lab "$1"; }
is_placed_by_others() { grep -lsxF -e "$1" "$(dirname "$record")"/* | grep -qvxF -e "$record"; }
paths=()
drafts=()
trap 'rm -f "${drafts[@]}"' EXIT
while IFS= read -r line; do
    case "$line" in
    "==> "*)
        path=${line#==> }
        if is_the_owners "$path"; then
            echo "$HOST: $path is not the lab's, because its text does not name the lab; it is not replaced" >&2
            exec 3>/dev/null
            continue
        fi
        (umask 022 && mkdir -p "$(dirname "$path")")
        draft=$(mktemp "$path.XXXXXX")
        paths+=("$path")
        drafts+=("$draft")
        exec 3>"$draft"
        ;;
    *) printf '%s\n' "$line" >&3 ;;
    esac
done
chown "$OWNER" "${drafts[@]}"
chmod "$MODE" "${drafts[@]}"
for index in "${!paths[@]}"; do
    if is_program "${paths[$index]}"; then chmod 0755 "${drafts[$index]}"; fi
    mv "${drafts[$index]}" "${paths[$index]}"
done
touch "$record"
comm -13 <(printf '%s\n' "${paths[@]}" | sort) <(sort "$record") | while IFS= read -r path; do
    is_the_owners "$path" || is_placed_by_others "$path" || rm -f "$path"
done
printf '%s\n' "${paths[@]}" >"$record"
