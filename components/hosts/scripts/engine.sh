#!/bin/bash
# Wait until Docker answers on $HOST, and let $LOGIN, the SSH user, speak to it.
set -eu
docker_answers() { timeout 10 docker version >/dev/null 2>&1; }
systemctl enable --quiet --now docker.service 2>/dev/null || true
deadline=$((SECONDS + 60))
until docker_answers; do
    if [ "$SECONDS" -ge "$deadline" ]; then
        {
            echo "$HOST: Docker does not answer after 60 s; the last that it wrote:"
            journalctl -u docker.service -n 15 --no-pager -o cat || true
            echo "next: 'systemctl status docker' there; then run 'pulumi up' again"
        } >&2
        exit 1
    fi
    sleep 0.2
done
# A restart of Docker, or its death, leaves containers running with their connections. An engine that has settings of
# its own keeps them, and a swarm does not go together with it. The lab's settings have a second name: a file of another
# that takes their place does not have it, whatever is in it, and there is no moment at which they have one name only.
settings=/etc/docker/daemon.json own=/etc/docker/calico-lab.json
keeps='{"live-restore": true}'
if [ ! -e "$settings" ] &&
    [ "$(docker info --format '{{.LiveRestoreEnabled}} {{.Swarm.LocalNodeState}}')" = "false inactive" ]; then
    mkdir -p /etc/docker
    rm -f "$own"
    echo "$keeps" >"$own"
    # Not where another was quicker.
    ln "$own" "$settings" 2>/dev/null || true
fi
if [ "$settings" -ef "$own" ] && [ "$(cat "$settings")" = "$keeps" ] &&
    [ "$(docker info --format '{{.LiveRestoreEnabled}}')" = false ]; then
    systemctl reload docker.service
fi
if [ "$LOGIN" != root ] && ! id -nG "$LOGIN" | grep -qw docker; then
    # The Docker provider comes as this user, who may sudo everything anyway. Written down before it is done: what is
    # cut off in between is done again, or has nothing to undo.
    touch /var/lib/calico-lab/docker-group
    usermod --append --groups docker "$LOGIN"
fi
