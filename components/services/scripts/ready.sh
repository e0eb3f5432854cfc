#!/bin/bash
# Wait until $CONTAINER passes the health check of its image, at most $SECONDS_ALLOWED seconds; when it does not,
# say how it fares and what it said last. The check is run here: Docker's own word comes only with its interval.
set -eu
deadline=$((SECONDS + SECONDS_ALLOWED))
# shellcheck disable=SC2016 # the template's variables, not the shell's
words='{{range $index, $word := .Config.Healthcheck.Test}}{{if $index}}{{println $word}}{{end}}{{end}}'
mapfile -t check < <(docker container inspect --format "$words" "$CONTAINER" | sed '/^$/d')
until said=$(docker container exec "$CONTAINER" "${check[@]}" 2>&1); do
    if [ "$SECONDS" -ge "$deadline" ]; then
        {
            state=$(docker container inspect --format '{{.State.Status}}, exit code {{.State.ExitCode}}' "$CONTAINER")
            echo "$HOST: container $CONTAINER ($state) is not healthy after $SECONDS_ALLOWED s: $said"
            echo "Its last lines:"
            docker container logs --tail 20 "$CONTAINER" 2>&1
            echo "Next: docker container inspect $CONTAINER, on $HOST; then pulumi up again."
        } >&2
        exit 1
    fi
    sleep 0.2
done
