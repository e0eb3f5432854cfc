#!/bin/bash
# The Docker driver against real engines: the one of this machine's distribution, and the one of today.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=env.sh
. ./env.sh
PATH=$PATH:/usr/sbin:/sbin
python3 -m workspace current-engine
suite=$(mktemp -d)
trap 'rm -rf "$suite"' EXIT
# As the toolchain builds: so the suite tests the driver that hosts get, and compiles no second time.
export CGO_ENABLED=0 GOFLAGS="-mod=readonly -trimpath -buildvcs=false"
root=$PWD
cd docker-driver
go test -c -tags engine -o "$suite/conformance.test" ./conformance
cd conformance

# The suite runs on the engine $1, with the programs in the folder $2 before all others.
run() {
    engine=$("$1" --version)
    echo "the Docker driver on $engine, with $(docker --version) as its client"
    if ! PATH="${2:+$2:}$PATH" DOCKERD=$1 "$suite/conformance.test" -test.v -test.timeout 30m 2>&1 |
        tee "$suite/log" | grep --line-buffered -e '^--- '; then
        grep -v '^=== ' "$suite/log" >&2
        echo "the Docker driver fails on $engine" >&2
        return 1
    fi
    if grep -q -e '--- SKIP' "$suite/log"; then
        echo "a test was skipped" >&2
        return 1
    fi
    echo "all $(grep -c -e '^--- PASS' "$suite/log") tests of the Docker driver pass on $engine"
}

run "$(command -v dockerd)" ""
current=$root/.toolchain/current-engine
run "$current/dockerd" "$current"
