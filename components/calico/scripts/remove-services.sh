#!/bin/bash
# Stop Calico on this host and remove what its programs leave in the kernel and in the file system.
set -eu
# The other hosts stop expecting a session with a node that is deleted. A node of this name with another address belongs
# to the host that has replaced this one, and stays.
delete_node() (
    # shellcheck source=components/calico/scripts/environment.sh
    . /etc/calico-lab/calico/environment.sh || exit
    CALICOCTL_SECONDS=10
    template='{{range .}}{{with .Spec.BGP}}{{.IPv4Address}}{{end}}{{end}}'
    address=$(calicoctl get node "$HOST" -o go-template="$template" 2>&1) || {
        echo "$address"
        exit 1
    }
    case "$address" in
    '' | "$IP" | "$IP"/*) calicoctl delete --skip-not-exists node "$HOST" ;;
    esac
)
# An etcd that is gone has no node either, so an error does not stop the removal.
if systemctl is-active --quiet calico-lab-calico.target && ! error=$(delete_node 2>&1); then
    echo "$HOST: calico: its node stays in etcd: $error" >&2
fi
for unit in $UNITS; do
    systemctl disable --quiet "$unit" 2>/dev/null || true
    systemctl kill --signal=KILL "$unit" 2>/dev/null || true
done
# shellcheck disable=SC2086 # one word per unit
systemctl stop $UNITS 2>/dev/null || true
# shellcheck disable=SC2086
systemctl reset-failed $UNITS 2>/dev/null || true

ebpf=/etc/calico-lab/calico/remove-ebpf.sh
if [ -e "$ebpf" ]; then
    bash "$ebpf"
else
    echo "$HOST: calico: $ebpf is missing, so eBPF programs of Felix may stay on interfaces" >&2
fi
# The routing rule for WireGuard and its table; 99 is Felix's default wireguardRoutingRulePriority.
if ip link show wireguard.cali >/dev/null 2>&1; then
    ip rule show priority 99 | sed -n 's/.* lookup \([^ ]*\).*/\1/p' | while read -r table; do
        ip route flush table "$table"
        ip rule delete priority 99
    done
fi
# Interfaces of containers and tunnels.
ip -o link show | sed -nE 's/^[0-9]+: (cali[0-9a-f]{11}|vxlan\.calico|wireguard\.cali)[@:].*/\1/p' | while read -r link; do
    ip link delete "$link"
done
# BIRD's routes to the blocks of this host and of others, Felix's routes over other interfaces (protocol 80), and the
# unreachable route of the pool. Other routes in the pool stay, for example of a libvirt bridge.
ip route flush root "$CIDR" proto bird
ip route flush root "$CIDR" proto 80
ip route flush type unreachable proto kernel metric 65535

# One transaction per table deletes Calico's rules in other chains, which have the comment "cali:..." or that of the
# Docker driver, and then Calico's chains. It changes nothing else in the table.
for family in iptables ip6tables; do
    for table in raw mangle nat filter; do
        "$family-save" -t "$table" 2>/dev/null | awk -v table="$table" '
            /^:cali-/ { chains[++count] = substr($1, 2) }
            /^-A / && !/^-A cali-/ && /--comment ("cali:|calico-docker-driver )/ { sub(/^-A/, "-D"); rules = rules $0 "\n" }
            END {
                if (!count && rules == "") exit
                print "*" table
                for (i = 1; i <= count; i++) print ":" chains[i] " - [0:0]"
                printf "%s", rules
                for (i = 1; i <= count; i++) print "-X " chains[i]
                print "COMMIT"
            }' | "$family-restore" --noflush
    done
done
ipset list -name | grep '^cali[46]' | while read -r set; do
    ipset destroy "$set"
done || true
before=/var/lib/calico-lab/calico.sysctl
[ ! -e "$before" ] || sysctl -q -e -p "$before" || true
if [ "$(readlink /run/bird/bird.ctl)" = /run/calico/bird.ctl ]; then
    rm -f /run/bird/bird.ctl
    rmdir --ignore-fail-on-non-empty /run/bird
fi
rm -rf /run/calico /var/lib/calico /var/lib/calico-lab/calico /var/lib/calico-lab/docker-driver
rm -f /run/docker/plugins/calico.sock /run/docker/plugins/calico-ipam.sock \
    /etc/calico-lab/calico/confd/templates "$before"
