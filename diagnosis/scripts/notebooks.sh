#!/bin/bash
# Print a line for each notebook of the lab on this host. Tabs separate its fields:
#   name, container, state, health
#   limit of memory and memory, in bytes
#   processors, in percent of one
#   saved work, in bytes
#   what Jupyter answers to /api/status, JSON or empty
#   the record of the last backup, JSON or empty
set -eu

# Ask Jupyter in the container $1, by its own token. One with a password says nothing.
activity() {
    docker container exec "$1" python3 -c '
import os, pathlib, urllib.request
path = os.environ.get("NOTEBOOK_PATH", "/")
url = f"http://127.0.0.1:8888{path}api/status"
token = pathlib.Path("/run/secrets/token").read_text().strip()
request = urllib.request.Request(url, headers={"Authorization": f"token {token}"})
print(urllib.request.urlopen(request, timeout=5).read().decode())
' 2>/dev/null || true
}

# Print the line of the container $1, with its processors $2 and its memory $3.
notebook() {
    local container=$1 name work format
    format='{{index .Config.Labels "calico-lab.notebook"}} {{.State.Status}}'
    format+=' {{with .State.Health}}{{.Status}}{{else}}none{{end}} {{.HostConfig.Memory}}'
    read -r name state health limit < <(docker container inspect --format "$format" "$container")
    work=$(docker volume inspect --format '{{.Mountpoint}}' "$container-work" 2>/dev/null) || work=
    printf '%s\t' "$name" "$container" "$state" "$health" "$limit" \
        "$(numfmt --from iec-i --suffix B "${3:-0B}" | tr -d B)" "${2%\%}" \
        "$([ -z "$work" ] || du --summarize --bytes "$work" | cut -f 1)" \
        "$([ "$state" != running ] || activity "$container")"
    tr -d '\n\t' 2>/dev/null <"/var/lib/calico-lab/backup-status/$name.json" || true
    echo
}

mapfile -t containers < <(docker container ls --all --filter label=calico-lab.notebook --format '{{.Names}}')
[ "${#containers[@]}" -gt 0 ] || exit 0
declare -A processors=() memory=()
while read -r container percent used _; do
    processors[$container]=$percent memory[$container]=$used
done < <(docker container stats --no-stream --format '{{.Name}} {{.CPUPerc}} {{.MemUsage}}')
# Side by side, because each asks a server. A line is written at once, so that lines do not mix.
for container in "${containers[@]}"; do
    { line=$(notebook "$container" "${processors[$container]:-}" "${memory[$container]:-}") && echo "$line"; } &
done
wait
