#!/bin/bash
# Undo interrupted installations on $HOST, then remove the lab's folders.
set -eu
# The latest installation is undone first.
components=/var/lib/calico-lab/components
if [ -d "$components" ]; then
    grep -sH . "$components"/*/since | sort -t : -k 2 -rn | sed -E 's|.*/([^/]+)/since:.*|\1|' |
        xargs -r bash /var/lib/calico-lab/tools/uninstall.sh
fi
# Missing if an earlier run was interrupted.
before=/var/lib/calico-lab/ip-forward
[ ! -e "$before" ] || cat "$before" >/proc/sys/net/ipv4/ip_forward
rm -f /etc/motd.d/calico-lab
[ ! -e /var/lib/calico-lab/motd.d ] || rmdir --ignore-fail-on-non-empty /etc/motd.d
rm -rf /etc/calico-lab /opt/calico-lab /var/lib/calico-lab
echo "$HOST is as it was"
