#!/bin/bash
# Place the files that standard input holds, with $MODE and $OWNER, and remember them under $NAME. All are
# written before the first is moved into its place; one that was placed before and is not named now is removed.
set -eu
record=/var/lib/calico-lab/files/$NAME
umask 077
paths=()
drafts=()
trap 'rm -f "${drafts[@]}"' EXIT
while IFS= read -r line; do
    case "$line" in
    "==> "*)
        path=${line#==> }
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
    mv "${drafts[$index]}" "${paths[$index]}"
done
(umask 022 && mkdir -p "$(dirname "$record")")
touch "$record"
comm -13 <(printf '%s\n' "${paths[@]}" | sort) <(sort "$record") | xargs -r -d '\n' rm -f
printf '%s\n' "${paths[@]}" >"$record"
