#!/bin/bash
# The tests that need no lab, and that wait for most of their time.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=env.sh
. ./env.sh
tests/conformance.sh
pytest tests/existing
