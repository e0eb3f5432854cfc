#!/bin/bash
# Install component $COMPONENT on $HOST: $PACKAGES, with the units in $MASK masked; the files in $FILES; and, if
# $SECRETS is "yes", the secret files on standard input (owner $OWNER, mode 0600). Then run script $START, unless unit
# $UNIT is active and was started with $CONFIG. Then run script $FINISH. Script $STOP undoes $START and $FINISH.
set -eu
tools=/var/lib/calico-lab/tools
record=/var/lib/calico-lab/components/$COMPONENT
mkdir -p "$record"
# Recorded first, because Pulumi forgets a resource whose creation failed: prepare.sh and unprepare.sh then undo it.
printf '%s\n' "$STOP" >"$record/stop.sh.new"
mv "$record/stop.sh.new" "$record/stop.sh"
[ -s "$record/since" ] || date +%s%N >"$record/since"
printf '%s\n' "$START" >"$record/start.sh"
printf '%s\n' "$FINISH" >"$record/finish.sh"
if [ -n "$PACKAGES$MASK" ]; then NAME=$COMPONENT bash "$tools/packages.sh"; fi
if [ -n "$FILES" ]; then
    printf '%s' "$FILES" | NAME=$COMPONENT MODE=0644 OWNER=root:root bash "$tools/place-files.sh"
else
    NAME=$COMPONENT bash "$tools/remove-files.sh"
fi
if [ "$SECRETS" = yes ]; then
    NAME=$COMPONENT-secrets MODE=0600 bash "$tools/place-files.sh"
else
    NAME=$COMPONENT-secrets bash "$tools/remove-files.sh"
fi
unset FILES START STOP FINISH
if [ -z "$UNIT" ] || [ "$(cat "$record/config" 2>/dev/null)" != "$CONFIG" ] || ! systemctl is-active --quiet "$UNIT"; then
    bash "$record/start.sh"
    echo "$CONFIG" >"$record/config"
fi
bash "$record/finish.sh"
touch "$record/installed"
