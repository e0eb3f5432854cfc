#!/bin/bash
# Remove what Docker leaves on $HOST if the lab has installed it. Any other Docker stays.
set -eu
if [ -e /var/lib/calico-lab/docker-group ]; then
    if id -nG "$LOGIN" | grep -qw docker; then gpasswd --delete "$LOGIN" docker >/dev/null; fi
    rm -f /var/lib/calico-lab/docker-group
fi
settings=/etc/docker/daemon.json own=/etc/docker/calico-lab.json
# The file as engine.sh has written it, or as an interrupted run of this script has left it.
if [ "$settings" -ef "$own" ] && [[ $(cat "$settings") =~ ^(\{\"live-restore\":\ (true|false)\})?$ ]]; then
    # Set to false first, because Docker keeps the value when the setting is removed.
    echo '{"live-restore": false}' >"$settings"
    systemctl reload docker.service || true
    for _ in $(seq 50); do
        [ "$(timeout 10 docker info --format '{{.LiveRestoreEnabled}}')" = true ] || break
        sleep 0.1
    done
    rm -f "$settings"
fi
rm -f "$own"
grep -qsx docker.io /var/lib/calico-lab/packages/docker || exit 0
# An installation that was interrupted has the package in its record, but not on the host.
systemctl cat docker.service >/dev/null 2>&1 || exit 0
systemctl stop docker.socket docker.service containerd.service
for family in iptables ip6tables; do
    for table in filter nat raw; do
        rules=$("$family-save" -t "$table" 2>/dev/null) || continue
        # Its rules in the built-in chains, then its own chains.
        sed -n -E 's/^-A ([A-Z]+.*( docker0( |$)| -j DOCKER(-[A-Z0-9-]+)?$| 172\.17\.0\.0\/).*)$/-D \1/p' <<<"$rules" |
            while read -r rule; do eval "$family -w -t $table $rule" || true; done
        chains=$(sed -n -E 's/^:(DOCKER(-[A-Z0-9-]+)?) .*/\1/p' <<<"$rules")
        for chain in $chains; do "$family" -w -t "$table" -F "$chain"; done
        for chain in $chains; do "$family" -w -t "$table" -X "$chain"; done
    done
    # Docker sets the policy to DROP when it enables forwarding. Restore ACCEPT if prepare.sh recorded it.
    ! grep -qsx "$family ACCEPT" /var/lib/calico-lab/forward-policy ||
        "$family" -w -P FORWARD ACCEPT 2>/dev/null || true
done
ip link delete docker0 2>/dev/null || true
findmnt --raw --noheadings --output TARGET | grep -E '^(/var/lib|/run)/docker/' | xargs -r umount || true
# The folders themselves may be mount points.
for folder in /var/lib/docker /var/lib/containerd; do
    [ ! -d "$folder" ] || find "$folder" -mindepth 1 -delete
    rmdir "$folder" 2>/dev/null || true
done
rm -rf /etc/docker /run/docker
rmdir /etc/cni/net.d /etc/cni 2>/dev/null || true
