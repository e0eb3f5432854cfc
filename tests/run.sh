#!/bin/bash
# All tests in order of their cost; whatever happens, nothing is left running.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=env.sh
. ./env.sh

finish() {
    status=$?
    trap - EXIT INT TERM
    pulumi destroy --stack lab --yes --skip-preview --non-interactive --suppress-permalink=true >/dev/null 2>&1 ||
        python3 -m toolchain sweep --stack lab
    python3 -m toolchain stop-engine
    exit "$status"
}
trap finish EXIT INT TERM

tests/prerequisites.sh
tests/check.sh
tests/conformance.sh
# The first time it takes minutes, which no test is given.
python3 -m toolchain ebpf
pytest tests/unit tests/preview tests/engine
# As README has them, and as a newcomer types them.
pulumi preview --stack lab
pulumi up --stack lab --yes
pulumi preview --stack lab --expect-no-changes
pytest tests/live
pulumi destroy --stack lab --yes
