#!/bin/bash
# Try from containers $NAMES of this host to reach each of $TARGETS ("<name>=<address> ..."), by ping, by TCP to port
# 5000, and by UDP to port 5001, all at once. Prints "<container> <target> ping|tcp open|silent", a line each. What is
# sent by UDP is the container's name: whether it comes is for the targets to say (heard.sh).
set -eu
# shellcheck disable=SC2016 # the container's shell expands it
probe='
answers() { name=$1 protocol=$2; shift 2; if "$@" >/dev/null 2>&1; then echo "$0 $name $protocol open"; else
    echo "$0 $name $protocol silent"; fi; }
for target in $1; do
    name=${target%%=*} address=${target#*=}
    answers "$name" ping ping -c 2 -i 0.3 -W 2 "$address" &
    answers "$name" tcp nc -z -w 3 "$address" 5000 &
    { echo "$0" | nc -u -q 0 -w 1 "$address" 5001; } >/dev/null 2>&1 &
done
wait'
for name in $NAMES; do
    docker exec "$name" sh -c "$probe" "$name" "$TARGETS" </dev/null &
done
wait
