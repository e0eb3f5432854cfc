#!/bin/bash
# Check that $HOST can carry the lab. Then make the lab's own folders, place the tools on standard input in one of them,
# and undo interrupted installations of other components than $COMPONENTS. With $CHECK_ONLY, only check. Where the host
# is a container of the lab, $MACHINE is its ID. $LOGIN is the SSH user, and $ROLE what the host is.
set -eu
refuse() {
    echo "$HOST: $1; $2" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || refuse "the SSH user is not root" "give root, or a user that may sudo without a password"
command -v systemctl >/dev/null || refuse "there is no systemd" "take Debian 12+ or Ubuntu 22.04+"
# shellcheck source=/dev/null
. /etc/os-release
case "$ID ${VERSION_ID%%.*}" in
"debian "1[2-9] | "ubuntu "2[2-9]) ;;
*) refuse "$PRETTY_NAME is not supported" "take Debian 12+ or Ubuntu 22.04+" ;;
esac
[ ! -e /snap/bin/docker ] ||
    refuse "Docker is there as a snap, beside which no other engine runs" "'snap remove docker' there, and again"
# A container of the lab that takes the place of another has Docker's data from that one. The containers and the network
# in it are made anew: what is there would be in the way of them, and has Docker wait for a driver that is not there yet.
# What is saved in volumes stays.
data=/var/lib/docker tasks=/run/containerd/io.containerd.runtime.v2.task/moby
is_of_another() {
    [ -n "${MACHINE-}" ] && [ ! -e /var/lib/calico-lab ] &&
        { [ -n "$(ls -A $data/containers 2>/dev/null)" ] || grep -qs calico-ipam $data/network/files/local-kv.db; }
}
if [ -z "${CHECK_ONLY-}" ] && is_of_another; then
    systemctl kill --signal=KILL docker.service containerd.service 2>/dev/null || true
    systemctl stop docker.socket docker.service containerd.service
    for pid in "$tasks"/*/init.pid; do [ ! -e "$pid" ] || kill -KILL "$(cat "$pid")" 2>/dev/null || true; done
    findmnt --raw --noheadings --output TARGET | grep "^$data/" | xargs -r umount || true
    find $data -mindepth 1 -maxdepth 1 ! -name volumes -exec rm -rf {} +
    systemctl start docker.service
fi
# A machine that was started a moment ago is given the time to finish its boot; a unit of its own that failed
# ("degraded") is not the lab's business.
timeout 60 systemctl is-system-running --wait >/dev/null 2>&1 || true
state=$(systemctl is-system-running || true)
case "$state" in
running | degraded) ;;
*) refuse "systemd is '$state' after 60 s" "see 'systemctl list-jobs' there" ;;
esac
[ -z "${CHECK_ONLY-}" ] || exit 0
install -d -m 0755 /etc/calico-lab /opt/calico-lab /var/lib/calico-lab
# What is sent arrives here: nobody but the SSH user puts something in its place.
install -d -m 0700 -o "$LOGIN" /var/lib/calico-lab/upload
# One line for who logs in, beside the owner's own /etc/motd (pam_motd(8)).
[ -d /etc/motd.d ] || touch /var/lib/calico-lab/motd.d
mkdir -p /etc/motd.d
echo "Calico Lab: $HOST is $ROLE. Its logs: journalctl -u 'calico-lab-*' -u docker" >/etc/motd.d/calico-lab
# The policy of chain FORWARD by family, "iptables DROP". Where there is no such chain, everything passes.
forward_policies() {
    local program family tables policy
    for program in iptables ip6tables; do
        family=ip tables=
        [ "$program" = iptables ] || family=ip6
        if command -v "$program-save" >/dev/null; then
            tables=$("$program-save" 2>/dev/null || true)
        elif command -v nft >/dev/null; then
            # The chain that iptables takes when it comes.
            tables=$(nft list chain "$family" filter FORWARD 2>/dev/null || true)
        fi
        policy=ACCEPT
        ! grep -qE '^:FORWARD DROP |[ ;]policy drop;' <<<"$tables" || policy=DROP
        echo "$program $policy"
    done
}
# Remember under $1 what the rest prints: once, and whole or not at all.
remember() {
    local record=/var/lib/calico-lab/$1
    [ ! -e "$record" ] || return 0
    "${@:2}" >"$record.new"
    mv "$record.new" "$record"
}
# Docker and Calico switch it on, and Docker then sets the policy to DROP. Both go back to what they were when the lab
# goes.
remember ip-forward cat /proc/sys/net/ipv4/ip_forward
remember forward-policy forward_policies
tools=/var/lib/calico-lab/tools
rm -rf "$tools.new"
install -d -m 0700 "$tools.new"
while IFS= read -r line; do
    case "$line" in
    "==> "*) exec 3>"$tools.new/${line#==> }" ;;
    *) printf '%s\n' "$line" >&3 ;;
    esac
done
rm -rf "$tools"
mv -T "$tools.new" "$tools"
for record in /var/lib/calico-lab/components/*/; do
    component=$(basename "$record")
    case " $COMPONENTS " in
    *" $component "*) ;;
    *) [ ! -d "$record" ] || [ -e "$record/installed" ] || bash "$tools/uninstall.sh" "$component" ;;
    esac
done
