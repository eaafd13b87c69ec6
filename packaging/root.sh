#!/bin/bash
# root.sh FILE [PACKAGE...]: makes FILE, a tar of a minimal Debian 12 with what the packages of Wicketgate depend on and the given
# ones. A FILE that was made by the same script of the same packages is kept, with the versions that they had then.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: $0 FILE [PACKAGE...]" >&2; exit 2; }
file=$1
shift
packages=$(cd "$(dirname "$0")/../crates" && sed -n 's/^depends = "\$auto, \(.*\)"$/\1/p' wicketgate/Cargo.toml agent/Cargo.toml)
packages=$(echo "$packages" "$@" | tr -s ', \n' ' ')
made_of="$packages $(sha256sum <"$0")"
[ ! -e "$file" ] || [ "$(cat "$file.made-of" 2>/dev/null)" != "$made_of" ] || exit 0
mkdir -p "$(dirname "$file")"
trap 'rm -f "$file.part"' EXIT
# mmdebstrap copies this host's two files.
mmdebstrap --quiet --variant=minbase --include="$packages" --customize-hook='rm -f "$1/etc/resolv.conf" "$1/etc/hostname"' \
  --aptopt='Apt::Install-Recommends "false"' --format=tar bookworm "$file.part" </dev/null
rm -f "$file.made-of"
mv "$file.part" "$file"
echo "$made_of" >"$file.made-of"
