#!/bin/bash
# Undo install.sh for the components $*, in this order: stop what runs, remove the files, purge the packages.
set -eu
tools=/var/lib/calico-lab/tools
components=/var/lib/calico-lab/components
[ -d "$components" ] || exit 0
# Pulumi removes several components at once.
exec 8<"$components"
flock 8
# Nothing is installed before stop.sh and the time are written.
has_begun() { [ -s "$components/$1/since" ]; }
undo() {
    has_begun "$1" || return 0
    bash "$components/$1/stop.sh"
    NAME=$1-secrets bash "$tools/remove-files.sh"
    NAME=$1 bash "$tools/remove-files.sh"
    NAME=$1 bash "$tools/purge-packages.sh"
    rm -rf "${components:?}/$1"
}
# The interrupted installations that began after that of component $1, the last first.
interrupted_after() {
    local began since record name
    read -r began <"$components/$1/since"
    for record in "$components"/*; do
        name=${record##*/}
        if ! has_begun "$name" || [ -e "$record/installed" ]; then continue; fi
        read -r since <"$record/since"
        [ "$since" -le "$began" ] || echo "$since $name"
    done | sort -rn | cut -d ' ' -f 2
}
for component in "$@"; do
    has_begun "$component" || continue
    # Pulumi does not know them, and their stop.sh may need what this component has installed.
    for later in $(interrupted_after "$component"); do undo "$later"; done
    undo "$component"
done
