#!/bin/bash
# What this host has of network $NETWORK: Docker's endpoints and containers, and the kernel's interfaces and routes.
# One fact a line, its kind in front.
set -eu
docker network inspect --format '{{range .Containers}}endpoint {{.EndpointID}} {{.IPv4Address}} {{.Name}}
{{end}}' "$NETWORK" | sed '/^$/d'
docker ps --all --format 'container {{.Names}} {{.State}}'
ip -o link show | sed -nE 's/^[0-9]+: ((cali|temp)[0-9a-f]{11})[@:].*/link \1/p'
ip -4 -o route show | sed -nE 's/^([0-9.]+) dev (cali[^ ]*) .*/route \1 \2/p'
