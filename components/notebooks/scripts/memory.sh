#!/bin/bash
# Print the memory of the host, in MiB.
exec awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo
