#!/bin/bash
# Makes the Debian packages from the executables that are built, and agents that need no C library, for hosts other than
# Debian 12. The debug symbols are in packages of their own. `make packages` runs it.
#
#   PROFILE   cargo's profile of the executables, release or dev (release)
#   OUT       where everything is put (target/packages)
#   STATIC    `no`: without the static agents
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/build-environment.sh
target=${CARGO_TARGET_DIR:-target}
out=${OUT:-$target/packages}
rm -rf "$out" && mkdir -p "$out"

profile=${PROFILE:-release}
built=$target/${profile/#dev/debug}
# cargo-deb takes executables of the release profile only: it finds them in a directory of its own.
staged=$(mktemp -d)
trap 'rm -rf "$staged"' EXIT
ln -s "$(realpath "$built")" "$staged/release"
# Executables for tests are packed quickly, without their symbols.
[ "$profile" = release ] && symbols=--dbgsym || symbols=--fast
for package in wicketgate wicketgate-agent; do
  rm -rf "$built/definitions/$package" && "$built/$package" man "$built/definitions/$package"
  CARGO_TARGET_DIR=$staged "${CARGO_DEB:-cargo-deb}" --package "$package" --no-build "$symbols" --output "$(realpath "$out")/"
done

# A static agent for each architecture whose musl library the toolchain has. Without any, the C library of this machine is
# linked in; it resolves names from /etc/hosts and DNS.
agents=
[ "${STATIC:-}" != no ] || exit 0
for architecture in x86_64 aarch64; do
  musl=$architecture-unknown-linux-musl
  ! [ -d "$(rustc --print target-libdir --target "$musl")" ] || agents+=" $musl"
done
[ -n "$agents" ] || agents=$(rustc -vV | sed -n 's/^host: //p')
for triple in $agents; do
  RUSTFLAGS="$RUSTFLAGS -C target-feature=+crt-static" cargo build --locked --profile "$profile" --package wicketgate-agent --target "$triple"
  built=$target/$triple/${profile/#dev/debug}/wicketgate-agent name=wicketgate-agent-static-${triple%%-*}
  objcopy --only-keep-debug "$built" "$out/$name.debug"
  objcopy --strip-all --add-gnu-debuglink="$out/$name.debug" "$built" "$out/$name"
done

(cd "$out" && sha256sum -- * >SHA256SUMS && ls -l --block-size=KiB)
