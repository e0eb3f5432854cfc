#!/bin/bash
# Wait until this host's member is healthy: it answers a read that a quorum has confirmed. If it does not
# within $SECONDS_ALLOWED, say what it sees of its $PEERS ("<name>=<address> ...").
set -eu
unit=calico-lab-etcd.service
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/etcd/etcdctl.env
set +a
export ETCDCTL_ENDPOINTS=$ENDPOINT

deadline=$((SECONDS + SECONDS_ALLOWED))
until health=$(etcdctl --command-timeout=2s endpoint health 2>&1); do
    [ "$SECONDS" -lt "$deadline" ] && sleep 0.2 && continue
    {
        echo "$HOST: etcd: the member is not healthy after $SECONDS_ALLOWED s"
        echo "its unit $unit: $(systemctl show -p ActiveState,SubState,NRestarts "$unit" | paste -s -d ' ')"
        echo "its client side: $(grep 'is unhealthy' <<<"$health" || tail -n 1 <<<"$health")"
        blocked=
        for peer in $PEERS; do
            address=${peer#*=}
            if timeout 3 bash -c "exec 3<>/dev/tcp/$address/$PEER_PORT" 2>/dev/null; then
                echo "its peer ${peer%%=*}: TCP to $address:$PEER_PORT answers"
            elif [ $? = 124 ]; then
                echo "its peer ${peer%%=*}: TCP to $address:$PEER_PORT gets no answer"
                blocked=yes
            else
                echo "its peer ${peer%%=*}: TCP to $address:$PEER_PORT is refused"
            fi
        done
        echo "the last that it wrote:"
        journalctl -u "$unit" -n 15 --no-pager -o cat || true
        if journalctl -u "$unit" -n 50 --no-pager -o cat | grep -q 'has already been bootstrapped'; then
            echo "next: this host has lost the data of a member of a running cluster; make the cluster anew:" \
                "'pulumi destroy', then 'pulumi up'"
        elif [ -n "$blocked" ]; then
            echo "next: a packet filter drops what gets no answer: look at 'iptables -S INPUT' here and there, and at" \
                "what lies between the hosts; then run 'pulumi up' again"
        else
            echo "next: 'journalctl -u $unit' on each member shows why; then run 'pulumi up' again"
        fi
    } >&2
    exit 1
done
