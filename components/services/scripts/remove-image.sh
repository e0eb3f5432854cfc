#!/bin/bash
# Remove from $HOST the image that image.sh loaded there, and whose ID it printed. It may be gone already, or
# in use by a container of the operator's own: neither is a reason to stop.
set -eu
ssh -F "$SSH_CONFIG" "$DESTINATION" docker image rm "$PULUMI_COMMAND_STDOUT" >/dev/null ||
    echo "$HOST: the image $IMAGE stays there" >&2
