#!/bin/bash
# Print the facts of one host for `lab doctor`: `<name> <value>`, a line each. It changes nothing.
#   $ADDRESSES  addresses of the other hosts, separated by spaces
set -u
export LC_ALL=C

fact() { sed "s/^/$1 /"; }

# shellcheck source=/dev/null
(. /etc/os-release && echo "$PRETTY_NAME") | fact release
nproc | fact cpus
awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo | fact memory
awk '$1 == "MemTotal:" { print $2 }' /proc/meminfo | fact total
df -Pk /var/lib | awk 'NR == 2 { print $4 }' | fact disk
date +%s.%N | fact clock
[ ! -d /var/lib/calico-lab/files ] || echo yes | fact lab
ss -Hltnp 2>/dev/null | fact listener
for address in $ADDRESSES; do
    ip -o -4 route get "$address" 2>/dev/null | fact route
done
echo yes | fact complete
