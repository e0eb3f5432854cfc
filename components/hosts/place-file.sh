#!/bin/bash
# Place standard input as $FILE with $MODE and $OWNER: whole or not at all, never readable in between.
set -eu
mkdir -p "$(dirname "$FILE")"
draft=$(mktemp "$FILE.XXXXXX")
trap 'rm -f "$draft"' EXIT
cat >"$draft"
chown "$OWNER" "$draft"
chmod "$MODE" "$draft"
mv "$draft" "$FILE"
trap - EXIT
