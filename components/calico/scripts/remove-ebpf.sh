#!/bin/bash
# Undo what Felix with the eBPF dataplane changes on this host: detach its programs, unpin its maps, and restore the
# sysctls that services.sh recorded. Felix with the iptables dataplane does not clean this up.
set -eu
bash /etc/calico-lab/calico/detach-programs.sh
state=/var/lib/calico-lab
for setting in /proc/sys/net/ipv4/conf/cali*/accept_local; do
    [ ! -e "$setting" ] || echo 0 >"$setting"
done
[ ! -e "$state/ebpf.sysctl" ] || sysctl -q -e -p "$state/ebpf.sysctl" || true
pins=/sys/fs/bpf/tc/globals
rm -f "$pins"/cali_* "$pins"/xdp_cali_*
rmdir --parents "$pins" 2>/dev/null || true
[ ! -e "$state/ebpf.mounted" ] || umount /sys/fs/bpf
rm -rf /run/calico/bpf /var/lib/calico/bpf_ct_map_size
rm -f /usr/lib/calico/bpf "$state/ebpf.sysctl" "$state/ebpf.mounted"
rmdir /usr/lib/calico 2>/dev/null || true
