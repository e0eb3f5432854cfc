#!/bin/bash
# Start Calico's $UNITS, or restart them with their new configuration. Felix works by $DATAPLANE, "iptables" or "ebpf".
set -eu
target=calico-lab-calico.target
# What Felix switches on for the whole machine is put back when the lab is removed. Remembered once, so whole or not at
# all.
before=/var/lib/calico-lab/calico.sysctl
if [ ! -e "$before" ]; then
    sysctl -e net.ipv4.ip_forward net.netfilter.nf_conntrack_acct >"$before.new"
    mv "$before.new" "$before"
fi
ln -sfn /opt/calico-lab/calico/confd/templates /etc/calico-lab/calico/confd/templates
systemctl daemon-reload
objects=/usr/lib/calico/bpf
if [ "$DATAPLANE" = ebpf ]; then
    state=/var/lib/calico-lab
    if [ ! -e "$state/ebpf.sysctl" ]; then
        sysctl -a -r '^net\.ipv4\.conf\..*\.(rp_filter|accept_local)$' 2>/dev/null |
            grep -v '\.cali' >"$state/ebpf.sysctl.new"
        mv "$state/ebpf.sysctl.new" "$state/ebpf.sysctl"
    fi
    mountpoint -q /sys/fs/bpf || touch "$state/ebpf.mounted"
    # Felix knows no other place.
    mkdir -p "${objects%/*}"
    ln -sfn /opt/calico-lab/calico/bpf "$objects"
elif [ -L "$objects" ]; then
    systemctl stop calico-lab-felix.service
    bash /etc/calico-lab/calico/remove-ebpf.sh
fi
# shellcheck disable=SC2086 # one word per unit is meant
systemctl enable --quiet $UNITS
# The units are part of the target, so they are started anew with it. Whether they do their work then is for the
# gate to say, and what keeps them from it.
timeout 90 systemctl restart "$target" || true
