#!/bin/bash
# root.sh FILE: makes FILE, a tar of a minimal Debian 12 with systemd and what the packages depend on. An existing FILE is kept.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 FILE" >&2; exit 2; }
[ ! -e "$1" ] || exit 0
depends="strongswan-charon,strongswan-swanctl,libcharon-extra-plugins,libstrongswan-standard-plugins,libstrongswan-extra-plugins"
depends+=",nftables,iproute2,procps,adduser,ca-certificates"
mkdir -p "$(dirname "$1")"
trap 'rm -f "$1.part"' EXIT
mmdebstrap --quiet --variant=minbase --include="systemd,systemd-sysv,dbus,$depends" \
  --aptopt='Apt::Install-Recommends "false"' --format=tar bookworm "$1.part" </dev/null
mv "$1.part" "$1"
