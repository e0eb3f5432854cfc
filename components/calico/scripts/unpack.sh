#!/bin/bash
# Unpack Calico's programs from $ARCHIVE, whose SHA-256 is $DIGEST, in the place of an earlier version.
set -eu
programs=/opt/calico-lab/calico
[ "$(cat "$programs/digest" 2>/dev/null)" = "$DIGEST" ] && exit 0
rm -rf "$programs.new" "$programs.old" "$programs.archive"
# $ARCHIVE lies where the SSH user may write. It is read once, into a folder of root's alone: what is checked there is
# what is unpacked, whatever becomes of $ARCHIVE in between. The time is for a pipe in its place, which nobody fills.
mkdir -p "${programs%/*}"
mkdir -m 0700 "$programs.archive"
trap 'rm -rf "$programs.archive"' EXIT
copy=$programs.archive/calico.tar.gz
if ! timeout 60 cat "$ARCHIVE" >"$copy" 2>/dev/null || ! sha256sum --status --check <<<"$DIGEST  $copy"; then
    echo "$HOST: calico: $ARCHIVE is not what was sent, or is gone;" \
        "send it again: 'pulumi up --replace' with the URN of $HOST-calico-archive" >&2
    exit 1
fi
mkdir "$programs.new"
tar -xzf "$copy" -C "$programs.new" --no-same-owner
echo "$DIGEST" >"$programs.new/digest"
[ ! -e "$programs" ] || mv -T "$programs" "$programs.old"
mv -T "$programs.new" "$programs"
rm -rf "$programs.old" "$ARCHIVE"
