#!/bin/sh
# The base images of the lab's builds, on the engine that DOCKER_HOST names:
#   calico-lab/debian:<suite>   Debian's slim image from a registry, or a system that is bootstrapped here; bookworm for
#                               services, and both suites for hosts
#   calico-lab/ca:latest        one file, /ca-certificates.crt: the certificate authorities that this computer trusts, for
#                               builds that download over https through a company's proxy
# `present` succeeds if all images exist and have the current bundle; `make` makes those that are missing.
set -eu

suites="bookworm trixie"
image=calico-lab/debian
limit_s=8

fail() {
    echo "base image: $*" >&2
    exit 1
}

# Pull the image of the suite $1. Fails if the registry does not answer within $limit_s seconds; `docker pull` prints its
# first line after the answer. The download itself has no time limit.
pull() {
    output=$(mktemp)
    docker pull "debian:$1-slim" >"$output" 2>&1 &
    pull=$!
    waited=0
    while kill -0 "$pull" 2>/dev/null && ! grep -q "Pulling from" "$output"; do
        if [ "$waited" -ge "$limit_s" ]; then
            kill "$pull"
            break
        fi
        sleep 1
        waited=$((waited + 1))
    done
    wait "$pull" && status=0 || status=$?
    rm -f "$output"
    return "$status"
}

# Print "URI LABEL" of each Debian archive in this computer's apt sources; the label of the security archive differs.
# The computer may run another release.
archives() {
    # shellcheck disable=SC2016 # apt replaces these
    apt-get indextargets --format '$(REPO_URI) $(LABEL) $(ORIGIN)' 'Created-By: Packages' 2>/dev/null |
        awk '$3 == "Debian" && ($2 == "Debian" || $2 == "Debian-Security") { print $1, $2 }' | sort -u
}

# Make the image of the suite $1.
bootstrap() {
    command -v apt-get >/dev/null || fail "no image registry answers, and without apt no Debian can be bootstrapped here"
    [ "$(id -u)" = 0 ] || fail "no image registry answers, and only root can bootstrap a Debian here; run this as root"
    if ! command -v mmdebstrap >/dev/null || [ ! -e /usr/share/keyrings/debian-archive-keyring.gpg ]; then
        apt-get update
        DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
            mmdebstrap debian-archive-keyring
    fi
    [ -n "$(archives)" ] || apt-get update
    sources=$(archives | while read -r uri label; do
        case $label in
            Debian) printf 'deb %s %s main\ndeb %s %s-updates main\n' "$uri" "$1" "$uri" "$1" ;;
            Debian-Security) printf 'deb %s %s-security main\n' "$uri" "$1" ;;
        esac
    done)
    [ -n "$sources" ] || fail "no image registry answers, and this computer's apt sources name no Debian mirror;" \
        "add one to them, or give the engine an image registry"
    # Into a file first, because a pipe would import the incomplete output of a failed mmdebstrap.
    tarball=$(mktemp)
    # Without manual pages and documentation, as in Debian's slim images.
    echo "$sources" | mmdebstrap --variant=minbase --components=main --quiet \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-include=/usr/share/doc/*/copyright' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --format=tar "$1" "$tarball" -
    docker import --change 'CMD ["bash"]' "$tarball" "$image:$1" >/dev/null
    rm "$tarball"
}

# The image's label has the bundle's digest: for the same bundle the image is kept, and builds that copy from it stay cached.
bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
[ -f "$bundle" ] || fail "no bundle of certificate authorities at $bundle; install ca-certificates"
bundle_digest=$(sha256sum <"$bundle" | cut -d' ' -f1)

has_debian() {
    docker image inspect "$image:$1" >/dev/null 2>&1
}

has_authorities() {
    label='{{index .Config.Labels "calico-lab.digest"}}'
    [ "$(docker image inspect --format "$label" calico-lab/ca:latest 2>/dev/null)" = "$bundle_digest" ]
}

make_debian() {
    if pull "$1"; then
        docker tag "debian:$1-slim" "$image:$1"
    else
        echo "no image registry has debian:$1-slim; bootstrapping it here"
        bootstrap "$1"
    fi
}

make_authorities() {
    folder=$(mktemp -d)
    cp "$bundle" "$folder/ca-certificates.crt"
    tar -C "$folder" --mtime=@0 --owner=0 --group=0 -c ca-certificates.crt |
        docker import --change "LABEL calico-lab.digest=$bundle_digest" - calico-lab/ca:latest >/dev/null
    rm -r "$folder"
}

case ${1:-} in
    present)
        for suite in $suites; do has_debian "$suite" || exit 1; done
        has_authorities
        ;;
    make)
        for suite in $suites; do has_debian "$suite" || make_debian "$suite"; done
        has_authorities || make_authorities
        ;;
    *) fail "usage: $0 present|make" ;;
esac
