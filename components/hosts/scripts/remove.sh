#!/bin/bash
# Undo install.sh for component $COMPONENT. A host without the tools has nothing of the lab.
set -eu
[ ! -e /var/lib/calico-lab/tools/uninstall.sh ] || exec bash /var/lib/calico-lab/tools/uninstall.sh "$COMPONENT"
