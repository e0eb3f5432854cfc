#!/bin/sh
# Install an engine as the package docker-ce does: it has what docker.io has, in other versions, and neither goes beside
# the other. Its programs are those of /root/engine.
set -eu
cd /root/engine
apt-get update -qq
apt-get download -qq docker.io
dpkg-deb --raw-extract docker.io_*.deb tree
sed -i -E 's/^Package: .*/Package: docker-ce/; s/^Version: .*/Version: 5:29/; /^(Breaks|Conflicts|Replaces|Provides):/d' tree/DEBIAN/control
echo 'Conflicts: docker.io' >>tree/DEBIAN/control
mv dockerd docker-proxy tree/usr/sbin/
mkdir -p tree/usr/local/sbin
mv runc tree/usr/local/sbin/
(cd tree && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | xargs -0 md5sum >DEBIAN/md5sums)
dpkg-deb -Znone --build tree /tmp/docker-ce.deb >/dev/null
DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends /tmp/docker-ce.deb >/dev/null 2>&1
rm -r /root/engine /tmp/docker-ce.deb
