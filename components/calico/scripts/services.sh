#!/bin/bash
# Start Calico's $UNITS, or restart them with their new configuration. Felix uses $DATAPLANE, "iptables" or "ebpf".
# $CONFIG has two digests, that of the endpoints of etcd last.
set -eu
target=calico-lab-calico.target
# If only the endpoints have changed, the services that use etcd restart. BIRD and its routes stay.
former=$(cat /var/lib/calico-lab/components/calico/config 2>/dev/null || true)
if [ -n "$former" ] && [ "${former% *}" = "${CONFIG% *}" ] && systemctl is-active --quiet "$target"; then
    timeout 90 systemctl restart calico-lab-felix.service calico-lab-confd.service \
        calico-lab-docker-driver.service || true
    exit
fi
# Felix changes these sysctls of the host. Their former values are recorded once, atomically; remove-services.sh
# restores them.
before=/var/lib/calico-lab/calico.sysctl
if [ ! -e "$before" ]; then
    sysctl -e net.ipv4.ip_forward net.netfilter.nf_conntrack_acct >"$before.new"
    mv "$before.new" "$before"
fi
ln -sfn /opt/calico-lab/calico/confd/templates /etc/calico-lab/calico/confd/templates
systemctl daemon-reload
objects=/usr/lib/calico/bpf
if [ "$DATAPLANE" = ebpf ]; then
    # remove-ebpf.sh restores these.
    state=/var/lib/calico-lab
    if [ ! -e "$state/ebpf.sysctl" ]; then
        sysctl -a -r '^net\.ipv4\.conf\..*\.(rp_filter|accept_local)$' 2>/dev/null |
            grep -v '\.cali' >"$state/ebpf.sysctl.new"
        mv "$state/ebpf.sysctl.new" "$state/ebpf.sysctl"
    fi
    mountpoint -q /sys/fs/bpf || touch "$state/ebpf.mounted"
    # Felix loads its programs from this path only.
    mkdir -p "${objects%/*}"
    ln -sfn /opt/calico-lab/calico/bpf "$objects"
elif [ -L "$objects" ]; then
    systemctl stop calico-lab-felix.service
    bash /etc/calico-lab/calico/remove-ebpf.sh
fi
# shellcheck disable=SC2086 # one word per unit
systemctl enable --quiet $UNITS
# The units are PartOf= the target, so they restart with it. A failure is not an error here, because the readiness gate
# (ready.sh) waits for the units and names the cause.
timeout 90 systemctl restart "$target" || true
