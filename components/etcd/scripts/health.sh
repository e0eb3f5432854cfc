#!/bin/bash
# Wait until this host's member is healthy: it answers a read that a quorum has confirmed. Fail after $SECONDS_ALLOWED.
# A member of a running cluster whose data are lost, with its host for example, joins the cluster again first.
set -eu
unit=calico-lab-etcd.service
set -a
# shellcheck source=/dev/null
. /etc/calico-lab/etcd/etcdctl.env
set +a
cluster=$ETCDCTL_ENDPOINTS
export ETCDCTL_ENDPOINTS=$ENDPOINT
# The unit reads it after the member's settings. A reboot does not take it away.
joining=/var/lib/calico-lab/etcd-joining.env
log=/var/lib/calico-lab/etcd/member/wal

# It was not started (member.sh), or etcd has refused to begin anew under the name of a member that has run, and ended.
has_lost_its_data() {
    [ ! -d "$log" ] && {
        [ -e "$joining" ] || [ "$(systemctl show -P ActiveState "$unit")" = inactive ] ||
            journalctl -u "$unit" -n 50 --no-pager -o cat | grep -q 'has already been bootstrapped'
    }
}

ask() { ETCDCTL_ENDPOINTS=$cluster etcdctl --command-timeout=5s "$@"; }

# The quorum is that of the others all along, and etcd refuses what would take it from them. To come as a learner would
# change nothing: this member has been missing, and is missing until it has the data.
join() {
    local url members id='' state=''
    url=$(sed -n 's/^ETCD_INITIAL_ADVERTISE_PEER_URLS=//p' /etc/calico-lab/etcd/etcd.env)
    members=$(ask member list --write-out=simple) || return
    # ID, status, name, peer URLs, client URLs: a member tells these when it has run.
    read -r id state < <(awk -F ', ' -v name="$HOST" -v url="$url" \
        '$3 == name || $4 == url { print $1, $5 == "" ? $2 : "ran" }' <<<"$members") || true
    # It only begins, with the others.
    [ "$state" != started ] || return
    systemctl stop "$unit"
    rm -rf "${log%/wal}"
    echo ETCD_INITIAL_CLUSTER_STATE=existing >"$joining"
    [ "$state" != ran ] || ask member remove "$id" >/dev/null || return
    [ "$state" = unstarted ] || ask member add "$HOST" --peer-urls="$url" >/dev/null || return
    systemctl start --no-block "$unit"
}

joined=
deadline=$((SECONDS + SECONDS_ALLOWED))
until health=$(etcdctl --command-timeout=2s endpoint health 2>&1); do
    [ -n "$joined" ] || ! has_lost_its_data || { said=$(join 2>&1) && joined=yes; } || true
    [ "$SECONDS" -lt "$deadline" ] && sleep 0.2 && continue
    {
        echo "$HOST: etcd: the member is not healthy after $SECONDS_ALLOWED s"
        echo "its unit $unit: $(systemctl show -p ActiveState,SubState,NRestarts "$unit" | paste -s -d ' ')"
        echo "its client side: $(grep 'is unhealthy' <<<"$health" || tail -n 1 <<<"$health")"
        echo "the last that it wrote:"
        journalctl -u "$unit" -n 15 --no-pager -o cat || true
        if has_lost_its_data; then
            echo "next: this host has lost the data of a member of a running cluster, and could not take its place" \
                "in it again${said:+: $said}. See that the other members are healthy, then run 'pulumi up' again; or" \
                "make the cluster anew: 'pulumi destroy', then 'pulumi up'"
        else
            echo "next: 'journalctl -u $unit' on each member shows why; then run 'pulumi up' again"
        fi
    } >&2
    exit 1
done
rm -f "$joining"
