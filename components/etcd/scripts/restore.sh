#!/bin/bash
# One step of the restore of a snapshot, on the host of member $MEMBER:
#   prepare  restore the snapshot on standard input, whose SHA-256 is $SHA256, into a folder beside the member's data, as
#            member of the cluster $CLUSTER with $TOKEN, reached by its peers at $PEER_URL. If $BUMP is "yes", with a
#            revision that is higher than any before, and compacted, so that clients that watch begin again.
#   stop     stop the member
#   replace  put what was restored in the place of the member's data, which are kept until the next restore
#   start    start the member, without waiting for the others
#   quorum   fail unless the member answers a read that a quorum has confirmed
#   bumps    print "yes" if `prepare` can raise the revision
#   pending  print $RECORD of a restore that has replaced the data, and was not finished
#   finish   the restore is finished
set -eu
umask 077
unit=calico-lab-etcd.service
restored=/var/lib/calico-lab/etcd-restored
before=/var/lib/calico-lab/etcd-before-restore
pending=/var/lib/calico-lab/etcd-pending-restore
data=/var/lib/calico-lab/etcd
# More revisions than a cluster writes between two snapshots.
BUMP_REVISIONS=1000000000

# From etcd 3.5 on; before that, etcdctl has these commands.
snapshot() {
    if type -P etcdutl >/dev/null; then etcdutl snapshot "$@"; else etcdctl snapshot "$@"; fi
}

case $STEP in
prepare)
    rm -rf "$restored"
    mkdir "$restored"
    cat >"$restored/snapshot.db"
    [ "$(sha256sum <"$restored/snapshot.db" | cut -d ' ' -f 1)" = "$SHA256" ] || {
        echo "$MEMBER: the snapshot has arrived damaged" >&2
        exit 1
    }
    options=(--data-dir "$restored/data" --name "$MEMBER" --initial-cluster "$CLUSTER"
        --initial-cluster-token "$TOKEN" --initial-advertise-peer-urls "$PEER_URL")
    [ "$BUMP" != yes ] || options+=(--bump-revision "$BUMP_REVISIONS" --mark-compacted)
    snapshot restore "$restored/snapshot.db" "${options[@]}" >"$restored/log" 2>&1 || {
        echo "$MEMBER: $(tail -n 1 "$restored/log" | cut -c 1-500)" >&2
        exit 1
    }
    rm "$restored/snapshot.db"
    chown -R etcd:etcd "$restored/data"
    ;;
stop)
    # SIGKILL, because a leader that stops transfers its leadership, which takes seconds when all members stop at once.
    systemctl kill --signal=KILL "$unit" 2>/dev/null || true
    systemctl stop "$unit"
    ;;
replace)
    mkdir -p "$data"
    chown etcd:etcd "$data"
    chmod 0700 "$data"
    # Data that an unfinished restore has put there are not the former ones.
    if [ -e "$pending" ]; then
        rm -rf "$data/member"
    elif [ -e "$data/member" ]; then
        rm -rf "$before"
        mv "$data/member" "$before"
    fi
    printf '%s\n' "$RECORD" >"$pending"
    mv "$restored/data/member" "$data/member"
    # They belong to the former data: what the member began with, and of which cluster it is.
    rm -rf "$restored" /var/lib/calico-lab/etcd-begin.env /var/lib/calico-lab/etcd-cluster
    ;;
start)
    systemctl reset-failed "$unit" 2>/dev/null || true
    systemctl restart --no-block "$unit"
    ;;
quorum)
    set -a
    # shellcheck source=/dev/null
    . /etc/calico-lab/etcd/etcdctl.env
    set +a
    ETCDCTL_ENDPOINTS=$ENDPOINT etcdctl --command-timeout=5s get calico-lab >/dev/null
    ;;
pending)
    cat "$pending" 2>/dev/null || true
    ;;
finish)
    rm -f "$pending"
    ;;
bumps)
    # A pipe would end etcdutl by SIGPIPE.
    if grep -q -e --bump-revision <<<"$(snapshot restore --help 2>&1)"; then echo yes; fi
    ;;
esac
