#!/bin/bash
# Run the container $CONTAINER of a notebook as it is described, and print its address as the last line; what the
# operator has to know is above that. Standard input has its token, and below that, where it has one, the hash of its
# password. $BACKED_UP is `yes` where the lab has backups. A container that is as described goes on running; a change of
# its limits, or of $LAB (what it may know of the lab, JSON), does not restart it.
set -eu
folder=/etc/calico-lab/notebooks/$CONTAINER
limits=(--memory "${MEMORY}m" --memory-swap "${MEMORY}m" --cpus "$CPUS" --pids-limit "$PIDS")

secrets=$(cat)
if ! docker volume inspect "$VOLUME" >/dev/null 2>&1; then
    if [ "$BACKED_UP" = yes ]; then
        echo "its volume with the saved work, $VOLUME, is gone; give it 'restore: latest', the last backup, or 'restore: empty'," \
            "another value than before" >&2
        exit 1
    fi
    echo "$HOST: the volume $VOLUME with the saved work of $NOTEBOOK is gone, and there is no backup; it begins anew"
fi
umask 077
mkdir -p "$folder"
# It is mounted read only for students.
[ -d /var/lib/calico-lab-shared ] || install -d -m 0755 -o 8888 -g 8888 /var/lib/calico-lab-shared
printf '%s\n' "$secrets" | sed -n 1p >"$folder/token"
printf '%s\n' "$secrets" | sed -n 2p >"$folder/password"
chown 8888:8888 "$folder/token" "$folder/password"
# In place, because a container sees the file that it has mounted, and not one that replaces it.
printf '%s\n' "$LAB" >"$folder/lab.json"
chmod 0644 "$folder/lab.json"

mounts=(
    # The labels are for a volume that somebody has removed: without them it would not be backed up.
    --mount "type=volume,source=$VOLUME,target=/home/notebook/work,volume-label=calico-lab.stack=$STACK,volume-label=calico-lab.notebook=$NOTEBOOK"
    --mount "type=bind,source=/var/lib/calico-lab-shared,target=/home/notebook/shared$([ -z "$ROLE" ] || echo ,readonly)"
    --mount "type=bind,source=$folder/lab.json,target=/run/lab.json,readonly"
)
if [ -s "$folder/password" ]; then
    mounts+=(--mount "type=bind,source=$folder/password,target=/run/secrets/password,readonly")
else
    mounts+=(--mount "type=bind,source=$folder/token,target=/run/secrets/token,readonly")
fi
asked=(
    --name "$CONTAINER" --hostname "$NOTEBOOK" --init --network "$NETWORK"
    "${mounts[@]}"
    --env "NOTEBOOK_NAME=$NOTEBOOK" --env "NOTEBOOK_PATH=$URL_PATH" --env "NOTEBOOK_CULL_SECONDS=$CULL_SECONDS"
    --env "NOTEBOOK_REPOSITORIES=$REPOSITORIES"
    --cap-drop ALL --security-opt no-new-privileges
    --log-driver json-file --log-opt max-size=10m --log-opt max-file=2
    --restart unless-stopped --stop-timeout 5
    --label "calico-lab.stack=$STACK" --label "calico-lab.host=$HOST" --label "calico-lab.notebook=$NOTEBOOK"
    --label "org.projectcalico.label.calico-lab.service=$SERVICE"
    ${ROLE:+--label "org.projectcalico.label.calico-lab.role=$ROLE"}
    "$IMAGE"
)
# The token has 256 bits, so that the digest tells nothing about it.
digest=$(printf '%s\0' "${asked[@]}" "$ADDRESS" "$secrets" | sha256sum | cut -c 1-32)
running=$(docker container inspect --format '{{index .Config.Labels "calico-lab.digest"}}' "$CONTAINER" 2>/dev/null || true)
# Its former address may belong to another container by now, if it was stopped for long; then it is run again below.
if [ "$running" = "$digest" ] && docker container start "$CONTAINER" >/dev/null; then
    docker container update "${limits[@]}" "$CONTAINER" >/dev/null
else
    docker container rm --force "$CONTAINER" >/dev/null 2>&1 || true
    # A container that Docker gives an address gets another one at each start, also after a crash and a reboot, and the
    # proxy would not find it. So a container that ends at once is given one, which is then this one's.
    [ -n "$ADDRESS" ] || ADDRESS=$(docker container run --rm --network "$NETWORK" --entrypoint hostname "$IMAGE" -i)
    docker container run --detach --label "calico-lab.digest=$digest" --ip "$ADDRESS" "${limits[@]}" "${asked[@]}" >/dev/null
fi
docker container inspect --format '{{range .NetworkSettings.Networks}}{{with .IPAMConfig}}{{.IPv4Address}}{{end}}{{end}}' "$CONTAINER"
