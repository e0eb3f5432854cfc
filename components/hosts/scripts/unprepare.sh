#!/bin/bash
# Remove the lab's own folders from $HOST.
set -eu
# It is gone where an earlier removal was cut off after this.
before=/var/lib/calico-lab/ip-forward
[ ! -e "$before" ] || cat "$before" >/proc/sys/net/ipv4/ip_forward
rm -f /etc/motd.d/calico-lab
[ ! -e /var/lib/calico-lab/motd.d ] || rmdir --ignore-fail-on-non-empty /etc/motd.d
rm -rf /etc/calico-lab /opt/calico-lab /var/lib/calico-lab
echo "$HOST is as it was"
