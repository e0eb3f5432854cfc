#!/bin/bash
# Remove the lab's own folders from $HOST.
set -eu
cat /var/lib/calico-lab/ip-forward >/proc/sys/net/ipv4/ip_forward
rm -rf /etc/calico-lab /opt/calico-lab /var/lib/calico-lab
echo "$HOST is as it was"
