#!/bin/bash
# Do what $PLAN says with containers on network $NETWORK. A line of it is "worker verb container options..."; each worker
# does its own lines one after the other. For every line done, prints: container, verb, exit status, when it began and
# ended (ms since 1970), and what Docker said.
set -u
image=calico-lab-guest
run=(docker run --network "$NETWORK" --volume /usr:/usr:ro --label calico-lab.churn)

work() {
    local worker verb name options said status began
    while read -r worker verb name options; do
        [ "$worker" = "$1" ] || continue
        began=$(date +%s%3N)
        # shellcheck disable=SC2086 # one word per option is meant
        case "$verb" in
        run) said=$("${run[@]}" --detach --name "$name" $options "$image" sleep infinity 2>&1 </dev/null) ;;
        once) said=$("${run[@]}" --rm --name "$name" $options "$image" true 2>&1 </dev/null) ;;
        remove) said=$(docker rm --force "$name" 2>&1 </dev/null) ;;
        esac
        status=$?
        said=${said//[$'\n\t']/ }
        printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$name" "$verb" "$status" "$began" "$(date +%s%3N)" "${said:0:1000}"
    done <<<"$PLAN"
}

while read -r worker; do
    work "$worker" &
done < <(cut -d ' ' -f 1 <<<"$PLAN" | sort -u)
wait
