#!/bin/bash
# Wait until Docker answers on $HOST, and give $LOGIN, the SSH user, access to it.
set -eu
docker_answers() { timeout 10 docker version >/dev/null 2>&1; }
systemctl enable --quiet --now docker.service 2>/dev/null || true
deadline=$((SECONDS + 60))
until docker_answers; do
    if [ "$SECONDS" -ge "$deadline" ]; then
        {
            echo "$HOST: Docker does not answer after 60 s; its last log lines:"
            journalctl -u docker.service -n 15 --no-pager -o cat || true
            echo "next: see 'systemctl status docker' on $HOST; then run 'pulumi up' again"
        } >&2
        exit 1
    fi
    sleep 0.2
done
# With live-restore, containers and their connections survive a restart or a crash of Docker. An engine that has
# settings keeps them, and a swarm does not support live-restore. The lab's daemon.json is a hard link to $own. So
# remove-engine.sh recognizes it by its inode; a file that somebody else has put in its place has another one. ln(1)
# creates it atomically.
settings=/etc/docker/daemon.json own=/etc/docker/calico-lab.json
content='{"live-restore": true}'
if [ ! -e "$settings" ] &&
    [ "$(docker info --format '{{.LiveRestoreEnabled}} {{.Swarm.LocalNodeState}}')" = "false inactive" ]; then
    mkdir -p /etc/docker
    rm -f "$own"
    echo "$content" >"$own"
    # It fails if somebody else has created the file in the meantime.
    ln "$own" "$settings" 2>/dev/null || true
fi
if [ "$settings" -ef "$own" ] && [ "$(cat "$settings")" = "$content" ] &&
    [ "$(docker info --format '{{.LiveRestoreEnabled}}')" = false ]; then
    systemctl reload docker.service
fi
if [ "$LOGIN" != root ] && ! id -nG "$LOGIN" | grep -qw docker; then
    # Images are loaded as this user, who has full sudo rights anyway. It is recorded first, so that after an interruption
    # it is done again, or undone without effect.
    touch /var/lib/calico-lab/docker-group
    usermod --append --groups docker "$LOGIN"
fi
