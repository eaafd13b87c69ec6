#!/bin/bash
# fetch.sh: unpacks Debian's libreswan and prints its directory. The tests use it as another vendor's end of a tunnel.
# It is not installed because it conflicts with strongSwan's packages. The unpacked files are kept for later runs.
# packaging/install-packages.sh installs the libraries that it needs.
set -eu -o pipefail
target=${CARGO_TARGET_DIR:-$(dirname "$0")/../../target}
mkdir -p "$target/libreswan"
dir=$(cd "$target/libreswan" && pwd)
root=$dir/unpacked
exec 9>"$dir/lock"
flock 9
if ! [ -x "$root/usr/libexec/ipsec/pluto" ]; then
  work=$(mktemp -d "$dir/work.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  # The package lists may be missing or outdated: they are updated only if the first download fails.
  (cd "$work" && { apt-get -q download libreswan || { apt-get -q update && apt-get -q download libreswan; }; }) >&2
  dpkg-deb -x "$work"/libreswan_*.deb "$work/root"
  rm -rf "$root"
  mv "$work/root" "$root"
fi
missing=$(ldd "$root"/usr/libexec/ipsec/{pluto,whack,addconn,algparse} | grep 'not found' || true)
[ -z "$missing" ] || { echo "Libreswan lacks libraries: run make install" "$missing" >&2; exit 1; }
echo "$root"
