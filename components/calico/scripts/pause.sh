#!/bin/bash
# Stop this host's clients of the datastore, before it is restored. Containers keep their connections, because the kernel
# forwards their packets. A container that starts waits for the driver.
set -eu
systemctl stop calico-lab-docker-driver.service calico-lab-felix.service calico-lab-confd.service
