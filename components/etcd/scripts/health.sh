#!/bin/bash
# Wait until this host's member is healthy, which means that it answers a read that a quorum has confirmed. Fail after
# $SECONDS_ALLOWED seconds. A member that has lost its data, for example because its host was replaced, joins the
# running cluster again first.
set -eu
unit=calico-lab-etcd.service
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/etcd/etcdctl.env
set +a
cluster=$ETCDCTL_ENDPOINTS
export ETCDCTL_ENDPOINTS=$ENDPOINT
# The unit reads this file after etcd.env. It is in /var/lib, because it has to survive a reboot.
joining=/var/lib/calico-lab/etcd-joining.env
wal=/var/lib/calico-lab/etcd/member/wal

# The member has no WAL, and either member.sh has not started it, or etcd has refused to bootstrap it again and exited.
has_lost_its_data() {
    [ ! -d "$wal" ] && {
        [ -e "$joining" ] || [ "$(systemctl show -P ActiveState "$unit")" = inactive ] ||
            journalctl -u "$unit" -n 50 --no-pager -o cat | grep -q 'has already been bootstrapped'
    }
}

ask() { ETCDCTL_ENDPOINTS=$cluster etcdctl --command-timeout=5s "$@"; }

# Add this member to the cluster again. The other members keep their quorum, because etcd rejects a change that would
# cost it. A learner would be no safer, because this member is missing anyway until it has the data.
join() {
    local url members id='' state=''
    url=$(sed -n 's/^ETCD_INITIAL_ADVERTISE_PEER_URLS=//p' /etc/calico-lab/etcd/etcd.env)
    members=$(ask member list --write-out=simple) || return
    # The fields are ID, status, name, peer URLs and client URLs. A member has published client URLs only if it has run.
    read -r id state < <(awk -F ', ' -v name="$HOST" -v url="$url" \
        '$3 == name || $4 == url { print $1, $5 == "" ? $2 : "ran" }' <<<"$members") || true
    # This member is bootstrapping with the others.
    [ "$state" != started ] || return
    systemctl stop "$unit"
    rm -rf "${wal%/wal}"
    echo ETCD_INITIAL_CLUSTER_STATE=existing >"$joining"
    [ "$state" != ran ] || ask member remove "$id" >/dev/null || return
    [ "$state" = unstarted ] || ask member add "$HOST" --peer-urls="$url" >/dev/null || return
    systemctl start --no-block "$unit"
}

joined=
deadline=$((SECONDS + SECONDS_ALLOWED))
until health=$(etcdctl --command-timeout=2s endpoint health 2>&1); do
    [ -n "$joined" ] || ! has_lost_its_data || { error=$(join 2>&1) && joined=yes; } || true
    [ "$SECONDS" -lt "$deadline" ] && sleep 0.2 && continue
    {
        echo "$HOST: etcd: the member is not healthy after $SECONDS_ALLOWED s"
        echo "its unit $unit: $(systemctl show -p ActiveState,SubState,NRestarts "$unit" | paste -s -d ' ')"
        echo "its client endpoint: $(grep 'is unhealthy' <<<"$health" || tail -n 1 <<<"$health")"
        echo "its last log lines:"
        journalctl -u "$unit" -n 15 --no-pager -o cat || true
        if has_lost_its_data; then
            echo "next: this host has lost the data of a member of a running cluster, and could not join it" \
                "again${error:+: $error}. Make sure that the other members are healthy, then run 'pulumi up' again;" \
                "or create a new cluster: 'pulumi destroy', then 'pulumi up'"
        else
            echo "next: 'journalctl -u $unit' on each member shows why; then run 'pulumi up' again"
        fi
    } >&2
    exit 1
done
rm -f "$joining"
