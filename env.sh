# shellcheck shell=sh
# Puts the lab's tools on PATH and sets Pulumi's variables: `. ./env.sh`, in any POSIX shell.

if [ -n "${BASH_SOURCE:-}" ]; then
    # shellcheck disable=SC3028,SC3054 # only bash runs this
    calico_lab=$(cd "$(dirname "${BASH_SOURCE}")" && pwd)
elif [ -n "${ZSH_VERSION:-}" ]; then
    # In zsh, $0 of a sourced file is the file's name.
    calico_lab=$(cd "$(dirname "$0")" && pwd)
else
    calico_lab=$(pwd)
fi

if [ -d "$calico_lab/.toolchain" ] && [ -x "$calico_lab/.venv/bin/python" ]; then
    # Variables that the env.sh of another checkout has set in this shell are replaced.
    if [ "${PULUMI_HOME:-}" = "${CALICO_LAB_ROOT:-}/.toolchain/pulumi-home" ]; then
        unset PULUMI_HOME PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION
    fi
    if [ "${PULUMI_CONFIG_PASSPHRASE_FILE:-}" = "${CALICO_LAB_ROOT:-}/.state/passphrase" ]; then
        unset PULUMI_CONFIG_PASSPHRASE_FILE
    fi
    export CALICO_LAB_ROOT="$calico_lab"
    # The language host uses the first Python on PATH.
    case $PATH in
        "$calico_lab/.venv/bin:$calico_lab/.toolchain/bin":*) ;;
        *) PATH=$calico_lab/.venv/bin:$calico_lab/.toolchain/bin:$PATH ;;
    esac
    export PATH
    if [ -e "$calico_lab/.toolchain/pulumi-home" ]; then
        export PULUMI_HOME="$calico_lab/.toolchain/pulumi-home"
        # All plugins are installed; a missing one is an error, and Pulumi does not try to download it.
        export PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION=true
    fi
    if [ -z "${PULUMI_CONFIG_PASSPHRASE+set}" ] && [ -z "${PULUMI_CONFIG_PASSPHRASE_FILE+set}" ]; then
        export PULUMI_CONFIG_PASSPHRASE_FILE="$calico_lab/.state/passphrase"
    fi
    export PULUMI_SKIP_UPDATE_CHECK=true
    # If the stack's file has lost its salt, Pulumi takes it from the state and does not generate another.
    export PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER=true
    unset calico_lab
else
    echo "env.sh: $calico_lab has no toolchain yet; run 'make setup' there, then '. ./env.sh'" >&2
    unset calico_lab
    # shellcheck disable=SC2317 # reached if the file is run instead of sourced
    return 1 2>/dev/null || exit 1
fi
