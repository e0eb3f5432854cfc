# shellcheck shell=bash
# A restic that only pretends: its repository is the folder of the path in the URL, below $STORE; a snapshot is a copy.
# A file $STORE/fail-<verb>-<notebook> has the verb fail; with $STORE/damaged, what is restored differs;
# with $STORE/incomplete it lacks files; with $STORE/errors there were errors, and the exit status is 0.
options=() words=() repository=
while [ $# -gt 0 ]; do
    case $1 in
    --repository-file) repository=$STORE/$(sed 's|.*/\([^/]*\)/$|\1|' "$2"); shift ;;
    --tag) tag=$2; shift ;;
    --target) target=$2; shift ;;
    --password-file | --cacert | --cache-dir | --host | --mode) shift ;;
    --*) options+=("$1") ;;
    *) words+=("$1") ;;
    esac
    shift
done
verb=${words[0]} id=${words[1]-}
case $verb in
cat) [ -d "$repository" ] || { echo "Fatal: unable to open config file: <config/> does not exist" >&2; exit 1; } ;;
init) mkdir -p "$repository" ;;
backup)
    [ -d "$repository" ] || exit 0
    [ ! -e "$STORE/fail-backup-${tag#notebook=}" ] || { echo "Fatal: rest:https://a1:secret@10.0.0.1/: no space left" >&2; exit 1; }
    id=$(date +%s%N)
    mkdir -p "$repository/$id"
    cp -a _data "$repository/$id/_data"
    echo "$tag" >"$repository/$id/tag"
    date --utc +%Y-%m-%dT%H:%M:%S.%NZ >"$repository/$id/time"
    find _data -type f -exec sha256sum {} + | sort | sha256sum | cut -c 1-64 >"$repository/$id/tree"
    echo '{"message_type":"status"}'
    echo '{"message_type":"summary","snapshot_id":"'"$id"'","total_bytes_processed":1,"total_files_processed":1}'
    ;;
snapshots)
    for folder in "$repository"/*/; do
        [ -e "$folder/tag" ] || continue
        [ -z "$id" ] || [ "$(basename "$folder")" = "$id" ] || continue
        [ -z "${tag-}" ] || [ "$(cat "$folder/tag")" = "$tag" ] || continue
        jq -n --arg id "$(basename "$folder")" --arg time "$(cat "$folder/time")" --arg tree "$(cat "$folder/tree")" \
            '{id: $id, short_id: $id[0:8], time: $time, tree: $tree}'
    done | jq -s .
    ;;
ls) find "$repository/$id/_data" -printf '{"struct_type":"node","type":"%y"}\n' ;;
stats) echo '{"total_size": 1}' ;;
restore)
    cp -a "$repository/$id/_data" "$target/_data"
    [ ! -e "$STORE/damaged" ] || find "$target/_data" -type f -exec sh -c 'echo damaged >>"$1"' - {} \;
    [ ! -e "$STORE/errors" ] || echo "Fatal: There were 2 errors"
    [ ! -e "$STORE/incomplete" ] || find "$target/_data" -type f -delete
    ;;
esac
