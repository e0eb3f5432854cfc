# shellcheck shell=sh
# Puts the lab's tools on PATH and gives Pulumi what it needs: `. ./env.sh`, in any POSIX shell.

if [ -n "${BASH_SOURCE:-}" ]; then
    # shellcheck disable=SC3028,SC3054 # only bash comes here
    calico_lab=$(cd "$(dirname "${BASH_SOURCE}")" && pwd)
elif [ -n "${ZSH_VERSION:-}" ]; then
    # In zsh a sourced file's $0 is its own name.
    calico_lab=$(cd "$(dirname "$0")" && pwd)
else
    calico_lab=$(pwd)
fi

if [ -d "$calico_lab/.toolchain" ] && [ -x "$calico_lab/.venv/bin/python" ]; then
    # What the env.sh of another checkout has set in this shell gives way to this one's.
    if [ "${PULUMI_HOME:-}" = "${CALICO_LAB_ROOT:-}/.toolchain/pulumi-home" ]; then
        unset PULUMI_HOME PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION
    fi
    if [ "${PULUMI_CONFIG_PASSPHRASE_FILE:-}" = "${CALICO_LAB_ROOT:-}/.state/passphrase" ]; then
        unset PULUMI_CONFIG_PASSPHRASE_FILE
    fi
    export CALICO_LAB_ROOT="$calico_lab"
    # The language host takes the first Python on PATH.
    case $PATH in
        "$calico_lab/.venv/bin:$calico_lab/.toolchain/bin":*) ;;
        *) PATH=$calico_lab/.venv/bin:$calico_lab/.toolchain/bin:$PATH ;;
    esac
    export PATH
    if [ -e "$calico_lab/.toolchain/pulumi-home" ]; then
        export PULUMI_HOME="$calico_lab/.toolchain/pulumi-home"
        # All plugins are there; a missing one shall be an error and not a search for its download host.
        export PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION=true
    fi
    if [ -z "${PULUMI_CONFIG_PASSPHRASE+set}" ] && [ -z "${PULUMI_CONFIG_PASSPHRASE_FILE+set}" ]; then
        export PULUMI_CONFIG_PASSPHRASE_FILE="$calico_lab/.state/passphrase"
    fi
    export PULUMI_SKIP_UPDATE_CHECK=true
    # Should the stack's file have lost its salt, it is taken from the state and not made anew.
    export PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER=true
    unset calico_lab
else
    echo "env.sh: $calico_lab has no toolchain yet; run 'make setup' there, then '. ./env.sh'" >&2
    unset calico_lab
    # shellcheck disable=SC2317 # reached where the file is run and not sourced
    return 1 2>/dev/null || exit 1
fi
