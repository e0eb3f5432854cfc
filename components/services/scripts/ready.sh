#!/bin/bash
# Wait until $CONTAINER passes the health check of its image. Print its state and its last log lines and fail after
# $SECONDS_ALLOWED seconds. The script runs the check itself, because Docker runs it only once per interval.
set -eu
deadline=$((SECONDS + SECONDS_ALLOWED))
# shellcheck disable=SC2016 # the template's variables, not the shell's
words='{{range $index, $word := .Config.Healthcheck.Test}}{{if $index}}{{println $word}}{{end}}{{end}}'
mapfile -t check < <(docker container inspect --format "$words" "$CONTAINER" | sed '/^$/d')
until error=$(docker container exec "$CONTAINER" "${check[@]}" 2>&1); do
    if [ "$SECONDS" -ge "$deadline" ]; then
        {
            state=$(docker container inspect --format '{{.State.Status}}, exit code {{.State.ExitCode}}' "$CONTAINER")
            echo "$HOST: container $CONTAINER ($state) is not healthy after $SECONDS_ALLOWED s: $error"
            echo "Its last log lines:"
            docker container logs --tail 20 "$CONTAINER" 2>&1
            echo "Next: run 'docker container inspect $CONTAINER' on $HOST; then run 'pulumi up' again"
        } >&2
        exit 1
    fi
    sleep 0.2
done
