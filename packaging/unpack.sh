#!/bin/bash
# unpack.sh PACKAGE...: unpacks Debian packages into one directory, and prints it. They are not installed, because that
# would remove or upgrade other packages of this machine: libreswan conflicts with strongSwan's, and buildah and squid depend on
# the newest passwd and perl. The unpacked files are kept for later runs. packaging/install-packages.sh installs the libraries
# that they need.
set -eu -o pipefail
[ $# -gt 0 ] || { echo "usage: $0 PACKAGE..." >&2; exit 2; }
target=${CARGO_TARGET_DIR:-$(dirname "$0")/../target}
mkdir -p "$target/unpacked"
dir=$(cd "$target/unpacked" && pwd)/$1
root=$dir/root
mkdir -p "$dir"
exec 9>"$dir/lock"
flock 9
if ! [ -d "$root" ]; then
  work=$(mktemp -d "$dir/work.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  # The package lists may be missing or outdated: they are updated only if the first download fails.
  (cd "$work" && { apt-get -q download "$@" || { apt-get -q update && apt-get -q download "$@"; }; }) >&2
  for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/root"; done
  mv "$work/root" "$root"
fi
missing=$(find "$root" -type f -perm /100 -exec sh -c 'ldd "$0" 2>/dev/null' {} \; | grep 'not found' | sort -u || true)
[ -z "$missing" ] || { echo "$1 lacks libraries: run make install" "$missing" >&2; exit 1; }
echo "$root"
