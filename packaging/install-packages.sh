#!/bin/bash
# Installs the Debian packages that the product, its demo and its tests run: those that are missing, by name.
# Installs no recommended packages and lets no package start a service, now or at the next boot: the product starts
# what it needs itself, and a charon of the system's own would hold UDP 500 and 4500.
#
#   install-packages.sh [product|demo|test|bench|packages|fuzz]...     (the first three if none is named)
set -euo pipefail

# What `wicketgate` runs: strongSwan's charon with the userland-ESP plugin, nftables, namespaces.
product="strongswan-swanctl strongswan-charon charon-systemd libcharon-extra-plugins
  libstrongswan-standard-plugins libstrongswan-extra-plugins nftables iproute2"
# What the demo adds: two real services behind the gateway, their clients, and an eye on the wire.
demo="$product util-linux procps tcpdump postgresql nginx-light curl"
# What building and testing adds.
test="$demo iperf3 qemu-system-x86 busybox-static gcc libc6-dev make ca-certificates python3 python3-venv faketime"
# The applications whose connections pass through shares in a test: servers and their clients, beside those of the demo.
test+=" mariadb-server-core mariadb-client-core redis-server openssh-server openssh-client python3-websockets python3-grpcio"
# Proxies between an agent and its gateway: for HTTP, tinyproxy without its service and squid, which is itself unpacked by
# packaging/unpack.sh; for SOCKS5, microsocks and dante.
test+=" tinyproxy-bin libecap3 libltdl7 libnetfilter-conntrack3 libtdb1 microsocks dante-server"
# Prometheus and its promtool, which tests ask about the metrics and the alert rules. Its service is not started.
test+=" prometheus"
# The hosts on which the packages are installed: systemd in containers.
test+=" mmdebstrap systemd-container"
# What runs the images.
test+=" crun umoci"
# The browser of the tests of the web console.
test+=" chromium"
# What Libreswan needs, which is itself unpacked by packaging/unpack.sh: its package conflicts with strongSwan's.
test+=" libnss3-tools libcap-ng0 libcurl3-nss libevent-pthreads-2.1-7 libldap-2.5-0 libldns3 libunbound8"
# What the benches compare with, and what building that needs.
bench="$product haproxy iperf3 openssl gcc libc6-dev libssl-dev pkg-config"

# What making packages needs, and images of them: buildah itself is unpacked by packaging/unpack.sh.
packages="binutils dpkg-dev gcc libc6-dev make mmdebstrap libdevmapper1.02.1 libgpgme11"

# What the fuzz targets need: libFuzzer is C++.
fuzz="g++"

wanted=
for set in "${@:-test}"; do
  case $set in
    product | demo | test | bench | packages | fuzz) wanted+=" ${!set}" ;;
    *) echo "install-packages: no such set: $set (product, demo, test, bench or packages)" >&2; exit 2 ;;
  esac
done

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
missing=
for package in $wanted; do installed "$package" || missing+=" $package"; done
[ -n "$missing" ] || exit 0

[ "$(id -u)" = 0 ] || { echo "install-packages: run as root to install:$missing" >&2; exit 1; }
command -v apt-get >/dev/null || { echo "install-packages: no apt-get here, install these yourself:$missing" >&2; exit 1; }

# While this runs, invoke-rc.d is told that every service start is forbidden (101). An existing policy is kept aside.
policy=/usr/sbin/policy-rc.d aside=/usr/sbin/policy-rc.d.wicketgate
restore() { if [ -e "$aside" ] || [ -L "$aside" ]; then mv -f "$aside" "$policy"; else rm -f "$policy"; fi; }
if [ -e "$aside" ] || [ -L "$aside" ]; then :; elif [ -e "$policy" ] || [ -L "$policy" ]; then mv "$policy" "$aside"; fi
trap restore EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

enabled() { find /etc/systemd/system -path '*.wants/*' -type l 2>/dev/null | sort; }
before=$(enabled)

export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -y -q -o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=120 "$@" </dev/null; }
echo "install-packages: installing$missing"
# The package lists may be absent or stale: they are fetched only if the first try fails.
# shellcheck disable=SC2086 # package names, split on purpose
apt install --no-install-recommends $missing || { apt update && apt install --no-install-recommends $missing; }
for package in $missing; do
  installed "$package" || { echo "install-packages: $package is still not installed" >&2; exit 1; }
done
# What was just enabled for the next boot is disabled again; what was enabled before stays as it was.
comm -13 <(echo "$before") <(enabled) | while read -r link; do
  systemctl disable --quiet "${link##*/}" 2>/dev/null || rm -f "$link"
done
