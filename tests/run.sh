#!/bin/bash
# All tests in order of their cost; whatever happens, nothing is left running.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=env.sh
. ./env.sh

finish() {
    status=$?
    trap - EXIT INT TERM
    [ -z "${conformance-}" ] || kill -- "-$conformance" 2>/dev/null || true
    rm -f "${log-}"
    pulumi destroy --stack lab --yes --skip-preview --non-interactive --suppress-permalink=true >/dev/null 2>&1 ||
        python3 -m workspace sweep --stack lab
    python3 -m workspace stop-engine
    exit "$status"
}
trap finish EXIT INT TERM

tests/prerequisites.sh
# The driver's suite waits most of its time, in namespaces of its own: it runs beside what computes.
log=$(mktemp)
setsid tests/conformance.sh >"$log" 2>&1 &
conformance=$!
tests/check.sh
# The first time it takes minutes, which no test is given.
python3 -m workspace ebpf
pytest tests/unit tests/preview tests/engine
passed=0
wait "$conformance" || passed=$?
conformance=
cat "$log"
[ "$passed" = 0 ] || exit "$passed"
# As README has them, and as a newcomer types them.
pulumi preview --stack lab
pulumi up --stack lab --yes
pulumi preview --stack lab --expect-no-changes
pytest tests/live
pulumi destroy --stack lab --yes
