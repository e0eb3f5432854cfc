#!/bin/bash
# Remove Calico's programs.
set -eu
rm -rf /opt/calico-lab/calico /opt/calico-lab/calico.{new,old,archive} "$ARCHIVE"
