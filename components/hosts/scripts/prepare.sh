#!/bin/bash
# Check that $HOST meets the lab's requirements. Then create the lab's folders, place the tools on standard input in one
# of them, and undo interrupted installations of components that are not in $COMPONENTS. If $CHECK_ONLY is set, only
# check. $HOST_CONTAINER is the ID of a host container, $LOGIN the SSH user, and $ROLE the host's role for the message of the
# day.
set -eu
refuse() {
    echo "$HOST: $1; $2" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || refuse "the SSH user is not root" "use root, or a user with sudo without a password"
command -v systemctl >/dev/null || refuse "systemd is missing" "use Debian 12+ or Ubuntu 22.04+"
# shellcheck source=/dev/null
. /etc/os-release
case "$ID ${VERSION_ID%%.*}" in
"debian "1[2-9] | "ubuntu "2[2-9]) ;;
*) refuse "$PRETTY_NAME is not supported" "use Debian 12+ or Ubuntu 22.04+" ;;
esac
[ ! -e /snap/bin/docker ] ||
    refuse "Docker is installed as a snap, and no other engine runs beside it" \
        "run 'snap remove docker' on the host, then try again"
# A replaced host container has the Docker data of the former one. The containers and the network in it are removed,
# because Pulumi creates them again under the same names, and because Docker would wait for a driver that is not
# installed yet. Volumes stay.
data=/var/lib/docker tasks=/run/containerd/io.containerd.runtime.v2.task/moby
has_former_data() {
    [ -n "${HOST_CONTAINER-}" ] && [ ! -e /var/lib/calico-lab ] &&
        { [ -n "$(ls -A $data/containers 2>/dev/null)" ] || grep -qs calico-ipam $data/network/files/local-kv.db; }
}
if [ -z "${CHECK_ONLY-}" ] && has_former_data; then
    systemctl kill --signal=KILL docker.service containerd.service 2>/dev/null || true
    systemctl stop docker.socket docker.service containerd.service
    for pid in "$tasks"/*/init.pid; do [ ! -e "$pid" ] || kill -KILL "$(cat "$pid")" 2>/dev/null || true; done
    findmnt --raw --noheadings --output TARGET | grep "^$data/" | xargs -r umount || true
    find $data -mindepth 1 -maxdepth 1 ! -name volumes -exec rm -rf {} +
    systemctl start docker.service
fi
# A host that has just started gets time to finish its boot. "degraded" means that some unit has failed; it need not
# concern the lab.
timeout 60 systemctl is-system-running --wait >/dev/null 2>&1 || true
state=$(systemctl is-system-running || true)
case "$state" in
running | degraded) ;;
*) refuse "systemd is '$state' after 60 s" "see 'systemctl list-jobs' on the host" ;;
esac
[ -z "${CHECK_ONLY-}" ] || exit 0
install -d -m 0755 /etc/calico-lab /opt/calico-lab /var/lib/calico-lab
# Uploads arrive here. Only the SSH user may write to it.
install -d -m 0700 -o "$LOGIN" /var/lib/calico-lab/upload
# One line at login, in addition to the owner's /etc/motd (pam_motd(8)).
[ -d /etc/motd.d ] || touch /var/lib/calico-lab/motd.d
mkdir -p /etc/motd.d
echo "Calico Lab: $HOST is $ROLE. Its logs: journalctl -u 'calico-lab-*' -u docker" >/etc/motd.d/calico-lab
# The policy of chain FORWARD by family, for example "iptables DROP". Without the chain it is ACCEPT.
forward_policies() {
    local program family tables policy
    for program in iptables ip6tables; do
        family=ip tables=
        [ "$program" = iptables ] || family=ip6
        if command -v "$program-save" >/dev/null; then
            tables=$("$program-save" 2>/dev/null || true)
        elif command -v nft >/dev/null; then
            # iptables-nft uses this chain when it is installed later.
            tables=$(nft list chain "$family" filter FORWARD 2>/dev/null || true)
        fi
        policy=ACCEPT
        ! grep -qE '^:FORWARD DROP |[ ;]policy drop;' <<<"$tables" || policy=DROP
        echo "$program $policy"
    done
}
# Record under $1 what the command in the other arguments prints, once and atomically.
record_once() {
    local record=/var/lib/calico-lab/$1
    [ ! -e "$record" ] || return 0
    "${@:2}" >"$record.new"
    mv "$record.new" "$record"
}
# Docker and Calico enable forwarding, and Docker then sets the policy to DROP. Both are restored when the lab is
# removed.
record_once ip-forward cat /proc/sys/net/ipv4/ip_forward
record_once forward-policy forward_policies
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
