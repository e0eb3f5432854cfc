#!/bin/bash
# Remove the image that image.sh loaded on $HOST; $PULUMI_COMMAND_STDOUT is the ID that image.sh printed. A failure is
# not an error, because the image may be gone already, or in use by a container of the operator.
set -eu
ssh -F "$SSH_CONFIG" "$DESTINATION" docker image rm "$PULUMI_COMMAND_STDOUT" >/dev/null ||
    echo "$HOST: the image $IMAGE was not removed" >&2
