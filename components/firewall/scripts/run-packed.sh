#!/bin/bash
# Unpack the archive on standard input to a temporary directory, and run firewall.sh from there.
# Variables: VERB, ARGUMENT (may be empty).
set -eu
umask 077
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
tar -xC "$directory"
sh "$directory/firewall.sh" "$VERB" ${ARGUMENT:+"$ARGUMENT"}
