#!/bin/bash
# Install what the tests use beside the lab's own tools; no service that a package brings is started.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
declare -A package=(
    [sshd]=openssh-server
    [openssl]=openssl
    [iptables-restore]=iptables
    [ipset]=ipset
    [nft]=nftables
    [tcpdump]=tcpdump
    # The hosts' backups are tested with it.
    [jq]=jq
    [chromium]=chromium
    [certutil]=libnss3-tools
    # The Docker driver's conformance suite has an engine and an etcd of its own, and builds a current engine.
    [dockerd]=docker.io
    [etcd]=etcd-server
    [gcc]=gcc
    [pkg-config]=pkg-config
)
missing=()
for program in "${!package[@]}"; do
    command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
# Containers of that suite have this program and nothing else, so it must need no library.
if ! busybox=$(command -v busybox) || ldd "$busybox" >/dev/null 2>&1; then
    missing+=(busybox-static)
fi
if ! pkg-config --exists libseccomp 2>/dev/null; then
    missing+=(libseccomp-dev libc6-dev)
fi
[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "the tests need ${missing[*]}; install them, or run this as root on Debian or Ubuntu" >&2
    exit 1
fi
echo "installing ${missing[*]}, which the tests use"
# See invoke-rc.d(8): 101 forbids every action.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
fi
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "${missing[@]}" >/dev/null
