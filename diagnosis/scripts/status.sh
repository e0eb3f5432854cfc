#!/bin/bash
# Print the facts of one host for `lab status`: `<name> <value>`, a line each. It changes nothing. A fact that cannot be
# found out is left out. Each command has a timeout of 5 seconds.
#   $ENDPOINT  client URL of this host's etcd member; empty without one
#   $NETWORK   name of the container network
set -u
export LC_ALL=C

ask() { timeout 5 "$@" </dev/null 2>/dev/null; }
fact() { sed "s/^/$1 /"; }

# Print the status line of the answer to GET http://127.0.0.1:$1/$2.
http_status() {
    # shellcheck disable=SC2016 # the inner shell expands its own arguments
    ask bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" && printf "GET /%s HTTP/1.0\r\n\r\n" "$1" >&3 && read -r line <&3 &&
        echo "${line%$'\''\r'\''}"' "$1" "$2"
}

# shellcheck source=/dev/null
(. /etc/os-release && echo "$PRETTY_NAME") | fact release
# The age of process 1, because in a host container /proc/uptime is the uptime of the controller.
ask ps -o etimes= -p 1 | fact uptime
date +%s | fact clock
# Host containers share a kernel and its memory.
fact kernel </proc/sys/kernel/random/boot_id
awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo | fact memory
engine=$(ask docker info --format '{{.DockerRootDir}}')
ask df -k --output=size,avail,target / /var/lib/calico-lab "${engine:-/var/lib/docker}" | sed 1d | sort -u -k 3 | fact disk
# A file may hold several certificates. Each gets a line.
awk '/-BEGIN CERTIFICATE-/ { der = ""; next } /-END CERTIFICATE-/ { print FILENAME, der; next } { der = der $0 }' \
    /etc/calico-lab/pki/*.crt 2>/dev/null | fact certificate

for unit in $(ask systemctl list-unit-files --no-legend --state=enabled 'calico-lab-*' docker.service | cut -d ' ' -f 1); do
    echo "$unit $(ask systemctl is-active "$unit")" | fact unit
done

if [ -n "$ENDPOINT" ] && [ -r /etc/calico-lab/etcd/etcdctl.env ]; then
    set -a
    # shellcheck source=/dev/null
    . /etc/calico-lab/etcd/etcdctl.env
    set +a
    export ETCDCTL_ENDPOINTS=$ENDPOINT
    etcdctl() { ask etcdctl --dial-timeout=2s --command-timeout=2s -w json "$@"; }
    health=$(etcdctl endpoint health)
    echo "$health" | fact etcd-health
    if [[ $health == *'"health":true'* ]]; then
        etcdctl endpoint status | fact etcd-status
    fi
    # From etcd 3.5 on, a member with an alarm is unhealthy.
    if [[ $health == *'"health":true'* || $health == *'Active Alarm'* ]]; then
        etcdctl member list | fact etcd-members
        etcdctl alarm list | fact etcd-alarms
    fi
fi
# It reads all of the last snapshot.
[ ! -x /usr/local/bin/calico-lab-snapshot ] || timeout 20 calico-lab-snapshot status 2>/dev/null | fact snapshots

http_status 9099 readiness | fact felix
http_status 9101 readiness | fact driver
ask birdc -s /run/calico/bird.ctl show protocols | awk '$2 == "BGP"' | fact bgp

ask docker network inspect --format '{{.Driver}}' "$NETWORK" | fact network
container='{"name":{{json .Name}},"image":{{json .Config.Image}},"labels":{{json .Config.Labels}}'
container+=',"state":{{json .State.Status}},"health":{{with .State.Health}}{{json .Status}}{{else}}null{{end}}'
container+=',"networks":{{json .NetworkSettings.Networks}}}'
ids=$(ask docker ps --all --quiet --no-trunc)
# shellcheck disable=SC2086 # one word per container is meant
[ -z "$ids" ] || ask docker inspect --format "$container" $ids | fact container

# For each chain of the lab: the number of rules in the kernel, and the number that was loaded.
for document in iptables:rules.v4 ip6tables:rules.v6; do
    for chain in CALICO-LAB-INPUT CALICO-LAB-PUBLISHED; do
        rules=$(ask "${document%:*}" -w 2 -S "$chain" | grep -c '^-A')
        loaded=$(grep -cs "^-A $chain " "/etc/calico-lab/firewall/current/${document#*:}")
        loaded=${loaded:-0}
        [ "$rules$loaded" = 00 ] || echo "${document%:*} $chain $rules $loaded" | fact chain
    done
done
[ ! -d /etc/calico-lab/firewall/previous ] || echo pending | fact firewall
echo yes | fact complete
