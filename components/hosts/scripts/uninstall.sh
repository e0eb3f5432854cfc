#!/bin/bash
# Undo install.sh for the components in the arguments, in their order: run stop.sh, remove the files, purge the
# packages.
set -eu
tools=/var/lib/calico-lab/tools
components=/var/lib/calico-lab/components
[ -d "$components" ] || exit 0
# Pulumi removes several components at once.
exec 8<"$components"
flock 8
# Whether anything may be installed: install.sh first writes stop.sh and the time.
has_started() { [ -s "$components/$1/since" ]; }
undo() {
    has_started "$1" || return 0
    bash "$components/$1/stop.sh"
    NAME=$1-secrets bash "$tools/remove-files.sh"
    NAME=$1 bash "$tools/remove-files.sh"
    NAME=$1 bash "$tools/purge-packages.sh"
    rm -rf "${components:?}/$1"
}
# The interrupted installations that started after that of component $1, the latest first.
interrupted_after() {
    local started since record name
    read -r started <"$components/$1/since"
    for record in "$components"/*; do
        name=${record##*/}
        if ! has_started "$name" || [ -e "$record/installed" ]; then continue; fi
        read -r since <"$record/since"
        [ "$since" -le "$started" ] || echo "$since $name"
    done | sort -rn | cut -d ' ' -f 2
}
for component in "$@"; do
    has_started "$component" || continue
    # Pulumi has no record of them, and their stop.sh may need files of this component.
    for later in $(interrupted_after "$component"); do undo "$later"; done
    undo "$component"
done
