#!/bin/bash
# Run the container $NAME as it is described, and print its ID and its address. $MOUNTS and $ENVIRONMENT have a line for
# each, $CAPABILITIES a word; $FILES changes with the files that it reads at its start. A container that is as described
# goes on running, also when its limits change.
set -eu
limits=(--memory "${MEMORY}m" --memory-swap "${MEMORY}m" --cpus "$CPUS")
asked=(
    # An init process reaps orphans and forwards signals.
    --name "$NAME" --hostname "${NAME#calico-lab-}" --init --network "$NETWORK"
    --log-driver json-file --log-opt max-size=10m --log-opt max-file=2
    --restart unless-stopped --stop-timeout 5 --cap-drop ALL
    --label "calico-lab.stack=$STACK" --label "calico-lab.host=$HOST"
)
[ -z "$SERVICE" ] || asked+=(--label "org.projectcalico.label.calico-lab.service=$SERVICE")
[ -z "$READ_ONLY" ] || asked+=(--read-only)
# It would stop programs with file capabilities, such as ping.
[ -n "$CAPABILITIES" ] || asked+=(--security-opt no-new-privileges)
for capability in $CAPABILITIES; do asked+=(--cap-add "$capability"); done
while IFS= read -r mount; do [ -z "$mount" ] || asked+=(--mount "$mount"); done <<<"$MOUNTS"
while IFS= read -r setting; do [ -z "$setting" ] || asked+=(--env "$setting"); done <<<"$ENVIRONMENT"
asked+=("$IMAGE")
digest=$(printf '%s\0' "${asked[@]}" "$ADDRESS" "$FILES" | sha256sum | cut -c 1-32)
running=$(docker container inspect --format '{{index .Config.Labels "calico-lab.digest"}}' "$NAME" 2>/dev/null || true)
if [ "$running" = "$digest" ] && docker container start "$NAME" >/dev/null; then
    docker container update "${limits[@]}" "$NAME" >/dev/null
else
    docker container stop "$NAME" >/dev/null 2>&1 || true
    docker container rm --force "$NAME" >/dev/null 2>&1 || true
    # Docker gives a container without an address of its own another one at each start. So a container that ends at
    # once is given one, which is then this one's.
    [ -n "$ADDRESS" ] || [ "$NETWORK" = host ] ||
        ADDRESS=$(docker container run --rm --network "$NETWORK" --entrypoint hostname "$IMAGE" -i)
    address=()
    [ -z "$ADDRESS" ] || address=(--ip "$ADDRESS")
    docker container run --detach --label "calico-lab.digest=$digest" "${address[@]}" "${limits[@]}" "${asked[@]}" >/dev/null
fi
docker container inspect --format '{{.Id}} {{range .NetworkSettings.Networks}}{{with .IPAMConfig}}{{.IPv4Address}}{{end}}{{end}}' "$NAME"
