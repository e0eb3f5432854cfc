#!/bin/sh
# Sends SIGHUP to what runs in another session of this SSH connection: to the process groups of the siblings
# of this shell, which are the other children of the sshd process of the connection.
set -u
for stat in /proc/[0-9]*/stat; do
    read -r line <"$stat" || continue
    # after the name of the program: its state, its parent, its process group
    # shellcheck disable=SC2086
    set -- ${line##*) }
    if [ "$2" = "$PPID" ] && [ "$3" != "$$" ]; then kill -HUP "-$3"; fi
done 2>/dev/null
