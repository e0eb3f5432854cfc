#!/bin/sh
# The controller's Docker engine. `running` succeeds if an engine answers; `start` installs and starts one if none does;
# `stop` stops the dockerd that `start` has started without systemd. For a private engine set DOCKER_HOST and the three
# CALICO_LAB_ENGINE_ variables.
set -eu

state=${CALICO_LAB_ENGINE_STATE:-/run/calico-lab/engine}
exec_root=${CALICO_LAB_ENGINE_EXEC_ROOT:-/run/docker}
log=$state/dockerd.log
pidfile=$state/dockerd.pid
limit_s=60

running() {
    command -v docker >/dev/null && timeout 10 docker version >/dev/null 2>&1
}

fail() {
    echo "$*" >&2
    exit 1
}

# Print the process ID in the file $1 if that process runs the program $2. The program is checked, because IDs are
# reused; a zombie has no program.
running_as() {
    pid=$(cat "$1" 2>/dev/null) && [ "$(basename "$(readlink "/proc/$pid/exe")")" = "$2" ] && echo "$pid"
}

# Print the ID of the dockerd that this script has started.
own() {
    running_as "$pidfile" dockerd
}

install_engine() {
    [ "$(id -u)" = 0 ] || fail "no Docker engine is installed, and only root can install one;" \
        "install docker.io, or run this as root"
    command -v apt-get >/dev/null || fail "no Docker engine is installed, and this is neither Debian nor Ubuntu;" \
        "install Docker and start it"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update
    apt-get install --yes --no-install-recommends docker.io iptables ca-certificates
    # In newer releases the client is a separate package.
    command -v docker >/dev/null || apt-get install --yes --no-install-recommends docker-cli
}

start_without_systemd() {
    mkdir -p "$state"
    # A dockerd that was killed leaves PID files, which a new one trusts when another process has the same ID.
    own >/dev/null || rm -f "$pidfile"
    containerd=$exec_root/containerd/containerd.pid
    running_as "$containerd" containerd >/dev/null || rm -f "$containerd"
    # shellcheck disable=SC2086 # one word per option is meant
    setsid dockerd --host "${DOCKER_HOST:-unix:///var/run/docker.sock}" --pidfile "$pidfile" \
        --exec-root "$exec_root" ${CALICO_LAB_ENGINE_OPTIONS:-} >"$log" 2>&1 </dev/null &
    started=$!
    waited=0
    until running; do
        kill -0 "$started" 2>/dev/null || fail "dockerd ended: $(tail -n 5 "$log"); the whole log: $log"
        [ "$waited" -lt "$limit_s" ] || fail "dockerd does not answer after $limit_s s; its log: $log"
        sleep 1
        waited=$((waited + 1))
    done
}

start() {
    running && return
    case ${DOCKER_HOST:-unix://} in
        unix://*) ;;
        *) fail "the Docker engine at DOCKER_HOST=$DOCKER_HOST does not answer; start it, or unset DOCKER_HOST" ;;
    esac
    { command -v dockerd && command -v docker; } >/dev/null || install_engine
    running && return
    [ "$(id -u)" = 0 ] || fail "no Docker engine answers to $(id -un); start it, or have $(id -un) put into" \
        "the group docker and log in again"
    if [ -d /run/systemd/system ]; then
        systemctl start docker || fail "docker.service does not start; see: journalctl -u docker"
        running || fail "docker.service runs and does not answer; see: journalctl -u docker"
    else
        start_without_systemd
    fi
}

stop() {
    pid=$(own) || return 0
    kill "$pid"
    waited=0
    while own >/dev/null; do
        [ "$waited" -lt "$limit_s" ] || { kill -9 "$pid"; break; }
        sleep 1
        waited=$((waited + 1))
    done
    rm -f "$pidfile"
}

case ${1:-} in
    running | start | stop) "$1" ;;
    *) fail "usage: $0 running|start|stop" ;;
esac
