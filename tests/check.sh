#!/bin/bash
# Lint and types of all languages of the project, and who imports whom.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=env.sh
. ./env.sh
root=$PWD
ruff check .
ruff format --check .
mypy .
lint-imports --no-logo
# The toolchain's own flags, so that its compiled packages are used again, and no module outside go.sum is needed.
CGO_ENABLED=0 GOFLAGS=$(python3 -c 'from toolchain import golang; print(*golang.FLAGS)')
export CGO_ENABLED GOFLAGS
git ls-files -z --cached --others --exclude-standard '*.sh' .ci/run images/host/init \
    images/notebook/{health,kernel,start,user-environment} 'components/*/scripts/*ctl' \
    'components/*/scripts/calico-lab-*' | xargs -0 shellcheck
for module in docker-driver toolchain/docker-plugin; do
    (
        cd "$module"
        patched=$root/.toolchain/$(basename "$module")/go.mod
        [ ! -f "$patched" ] || export GOFLAGS="$GOFLAGS -modfile=$patched"
        unformatted=$(gofmt -l .)
        if [ -n "$unformatted" ]; then
            echo "$unformatted: run gofmt -w in $module" >&2
            exit 1
        fi
        go vet ./...
        go tool -modfile="$root/toolchain/staticcheck/go.mod" staticcheck ./...
        go test ./...
    )
done
