#!/bin/bash
# Unpack Calico's programs from $ARCHIVE, whose SHA-256 is $DIGEST. They replace an earlier version.
set -eu
programs=/opt/calico-lab/calico
[ "$(cat "$programs/digest" 2>/dev/null)" = "$DIGEST" ] && exit 0
rm -rf "$programs.new" "$programs.old" "$programs.archive"
# The SSH user may write to $ARCHIVE. So it is copied once to a folder that only root can access, and the copy is
# checked and unpacked. The time limit ends the copy if $ARCHIVE is a pipe without a writer.
mkdir -p "${programs%/*}"
mkdir -m 0700 "$programs.archive"
trap 'rm -rf "$programs.archive"' EXIT
copy=$programs.archive/calico.tar.gz
if ! timeout 60 cat "$ARCHIVE" >"$copy" 2>/dev/null || ! sha256sum --status --check <<<"$DIGEST  $copy"; then
    echo "$HOST: calico: $ARCHIVE is missing or differs from the archive that was sent;" \
        "send it again: 'pulumi up --replace' with the URN of calico-archive" >&2
    exit 1
fi
mkdir "$programs.new"
tar -xzf "$copy" -C "$programs.new" --no-same-owner
echo "$DIGEST" >"$programs.new/digest"
[ ! -e "$programs" ] || mv -T "$programs" "$programs.old"
mv -T "$programs.new" "$programs"
rm -rf "$programs.old" "$ARCHIVE"
