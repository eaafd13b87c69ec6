#!/bin/bash
# Makes an OCI image of each role from the packages and static agents in OUT, as archives: IMAGES/NAME-ARCHITECTURE.tar. Run as
# root. Needs no registry, and no daemon: buildah starts from nothing, and Debian's mirror has the rest. `make images` runs it.
#
#   OUT       where packaging/build-packages.sh has put the packages (target/packages)
#   IMAGES    where the images are put (target/images)
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
out=${OUT:-$target/packages}
images=${IMAGES:-$target/images}

buildah=$(packaging/unpack.sh buildah golang-github-containers-common)
work=$(mktemp -d "${TMPDIR:-/var/tmp}/wicketgate-images.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/context/empty" "$images"

image() { # name, architecture
  rm -f "$images/$1-$2.tar"
  "$buildah/usr/bin/buildah" --storage-driver vfs --root "$work/storage" --runroot "$work/run" build --quiet --isolation chroot \
    --signature-policy "$buildah/etc/containers/policy.json" --arch "$2" --file "packaging/images/$1.Containerfile" \
    --tag "oci-archive:$images/$1-$2.tar:$1" "$work/context"
}

for agent in "$out"/wicketgate-agent-static-*; do
  case $agent in
    *-x86_64) architecture=amd64 ;;
    *-aarch64) architecture=arm64 ;;
    *) continue ;; # debug symbols
  esac
  cp "$agent" "$work/context/wicketgate-agent"
  image wicketgate-agent "$architecture"
done

# Made each time: an image has the packages' versions of the day.
packaging/root.sh "$work/context/root.tar"
cp "$out"/wicketgate_*.deb "$work/context/wicketgate.deb"
image wicketgate "$(dpkg --print-architecture)"

ls -l --block-size=KiB "$images"
