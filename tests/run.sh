#!/bin/bash
# All tests. What has networks and containers of its own runs beside the rest; whatever happens, nothing is left running.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=env.sh
. ./env.sh

finish() {
    status=$?
    trap - EXIT INT TERM
    if [ -n "${beside-}" ]; then
        # pytest removes its containers when it is interrupted.
        kill -INT -- "-$beside" 2>/dev/null || true
        wait "$beside" 2>/dev/null || true
        cat "$log"
    fi
    rm -f "${log-}"
    docker ps --all --quiet --filter label=calico-lab.test | xargs -r docker rm --force --volumes >/dev/null || true
    docker network prune --force --filter label=calico-lab.test >/dev/null || true
    pulumi destroy --stack lab --yes --skip-preview --non-interactive --suppress-permalink=true >/dev/null 2>&1 ||
        python3 -m workspace sweep --stack lab
    python3 -m workspace stop-engine
    exit "$status"
}
trap finish EXIT INT TERM

tests/prerequisites.sh
# The first time it takes minutes, which no test is given.
python3 -m workspace ebpf
# Under monitor mode a job has a process group of its own, and SIGINT is not ignored in it.
set -m
log=$(mktemp)
tests/beside.sh >"$log" 2>&1 &
beside=$!
set +m
tests/check.sh
pytest tests/unit tests/preview tests/engine
# As README has them, and as a newcomer types them.
pulumi preview --stack lab
pulumi up --stack lab --yes
pulumi preview --stack lab --expect-no-changes
pytest tests/live
pulumi destroy --stack lab --yes
wait "$beside"
cat "$log"
beside=
