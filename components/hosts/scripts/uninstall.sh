#!/bin/bash
# Undo install.sh for the components $*, in this order: stop what runs, remove the files, purge the packages.
set -eu
tools=/var/lib/calico-lab/tools
components=/var/lib/calico-lab/components
for component in "$@"; do
    [ -d "$components/$component" ] || continue
    bash "$components/$component/stop.sh"
    NAME=$component-secrets bash "$tools/remove-files.sh"
    NAME=$component bash "$tools/remove-files.sh"
    NAME=$component bash "$tools/purge-packages.sh"
    rm -rf "${components:?}/$component"
done
