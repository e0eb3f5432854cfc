#!/bin/bash
# All tests. Those that need no lab run beside those that do; whatever happens, nothing is left running.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=env.sh
. ./env.sh

finish() {
    status=$?
    trap - EXIT INT TERM
    for job in "${!jobs[@]}"; do
        # pytest removes its containers when it is interrupted.
        kill -INT -- "-${jobs[$job]}" 2>/dev/null || true
        wait "${jobs[$job]}" 2>/dev/null || true
        cat "$logs/$job"
    done
    rm -rf "$logs"
    tests/leftovers.sh || true
    pulumi destroy --stack lab --yes --skip-preview --non-interactive --suppress-permalink=true >/dev/null 2>&1 ||
        python3 -m workspace sweep --stack lab
    python3 -m workspace stop-engine
    exit "$status"
}
declare -A jobs=()
logs=$(mktemp -d)
trap finish EXIT
# Without these a run that is interrupted would have the status of its last command.
trap 'exit 130' INT
trap 'exit 143' TERM

# Run the command $2... in the background as the job $1. Under monitor mode it has a process group of its own, and
# SIGINT is not ignored in it.
start() {
    local name=$1
    shift
    set -m
    "$@" >"$logs/$name" 2>&1 &
    jobs[$name]=$!
    set +m
}

# Wait for the job $1, and fail where it has failed.
finished() {
    local pid=${jobs[$1]} status=0
    wait "$pid" || status=$?
    unset "jobs[$1]"
    cat "$logs/$1"
    return "$status"
}

tests/prerequisites.sh
# What a run that was killed has left.
tests/leftovers.sh
# The first time it takes minutes, which no test is given.
python3 -m workspace ebpf
start beside tests/beside.sh
tests/check.sh
start unit pytest tests/unit tests/preview tests/engine
# As README has them, and as a newcomer types them.
pulumi preview --stack lab
pulumi up --stack lab --yes
pulumi preview --stack lab --expect-no-changes
pytest tests/live
pulumi destroy --stack lab --yes
finished unit
finished beside
