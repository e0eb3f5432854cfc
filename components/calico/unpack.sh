#!/bin/bash
# Unpack Calico's programs from $ARCHIVE, whose SHA-256 is $DIGEST, in the place of an earlier version.
set -eu
programs=/opt/calico-lab/calico
[ "$(cat "$programs/digest" 2>/dev/null)" = "$DIGEST" ] && exit 0
if ! sha256sum --status --check <<<"$DIGEST  $ARCHIVE"; then
    echo "$HOST: calico: $ARCHIVE is not what was sent, or is gone;" \
        "send it again: 'pulumi up --replace' with the URN of $HOST-calico-archive" >&2
    exit 1
fi
rm -rf "$programs.new" "$programs.old"
mkdir -p "$programs.new"
tar -xzf "$ARCHIVE" -C "$programs.new" --no-same-owner
echo "$DIGEST" >"$programs.new/digest"
[ ! -e "$programs" ] || mv -T "$programs" "$programs.old"
mv -T "$programs.new" "$programs"
rm -rf "$programs.old" "$ARCHIVE"
