#!/bin/bash
# Print what may keep the etcd member of this host from being healthy: `<name> <value>`, a line each. It changes nothing.
set -u
unit=calico-lab-etcd.service
folder=/var/lib/calico-lab/etcd

echo "unit $(systemctl show -P ActiveState "$unit")"
[ ! -d "$folder/member/wal" ] || echo "data yes"
sed -n 's/^ETCD_LISTEN_PEER_URLS=.*:/peer-port /p' /etc/calico-lab/etcd/etcd.env 2>/dev/null
# Of the nearest folder that exists.
df -Pk "$([ -d "$folder" ] && echo "$folder" || echo /var/lib)" | awk 'NR == 2 { print "free-kib", $4 }'
# The smallest time within which 99 of 100 writes of the log were on disk, as Prometheus' histogram_quantile counts.
# By bash (REDIRECTION in bash(1)), because not every host has curl.
timeout 2 bash -c 'exec 3<>/dev/tcp/127.0.0.1/2381; printf "GET /metrics HTTP/1.0\r\n\r\n" >&3; cat <&3' 2>/dev/null | awk '
    /^etcd_disk_wal_fsync_duration_seconds_bucket/ { match($1, /"[^"]*"/); bound[++n] = substr($1, RSTART + 1, RLENGTH - 2); count[n] = $2 }
    END { for (i = 1; n && i <= n; i++) if (count[i] >= 0.99 * count[n]) { print "fsync-p99", bound[i == n ? i - 1 : i]; exit } }'
# Of the process that runs now or ran last, the last line of each kind. From 3.5 on, a line is JSON, with a time.
since=$(systemctl show -P InactiveExitTimestamp "$unit")
journalctl -u "$unit" --since "${since:--5min}" -n 2000 --no-pager -o cat | awk '
    { kind = "" }
    /cluster ID mismatch/ { kind = "cluster" }
    /permanently removed/ { kind = "removed" }
    /no space left on device/ { kind = "space" }
    /tls: |x509: / { kind = "certificate" }
    /clock (difference|drift)/ { kind = "clock" }
    kind { last[kind] = $0 }
    END { for (kind in last) print "log-" kind, last[kind] }
'
exit 0
