#!/bin/bash
# Place the files that standard input holds, with $MODE and $OWNER, and remember them under $NAME. All are
# written before the first is moved into its place; one that was placed before and is not named now is removed.
# What goes to /usr/local/bin may be run by all, and stays out of the way of a program that the host's owner has there.
set -eu
record=/var/lib/calico-lab/files/$NAME
umask 077
(umask 022 && mkdir -p "$(dirname "$record")")
# Two components may place the same file, and one may remove it while the other does.
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
            echo "$HOST: $path is not the lab's, and stays as it is: it knows nothing of the lab" >&2
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
