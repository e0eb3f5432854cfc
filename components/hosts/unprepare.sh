#!/bin/bash
# Remove the lab's own folders from $HOST.
set -eu
rm -rf /etc/calico-lab /opt/calico-lab /var/lib/calico-lab
echo "$HOST is as it was"
