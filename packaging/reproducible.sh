#!/bin/bash
# Builds the current commit twice, in two directories, and compares the executables byte by byte. `make reproducible` runs it.
#
#   ONLY       one program, wicketgate or wicketgate-agent (both)
#   PROFILE    cargo's profile, release or dev, which is built sooner (release)
set -euo pipefail
cd "$(dirname "$0")/.."
place=$(mktemp -d "${TMPDIR:-/tmp}/wicketgate-reproducible.XXXXXX")
trap 'rm -rf "$place"' EXIT
programs=${ONLY:-wicketgate wicketgate-agent}
built=${PROFILE:-release}
# Commits that are made meanwhile are not built.
commit=$(git rev-parse HEAD)
for directory in "$place/one" "$place/another/place"; do
  git clone --quiet --no-checkout . "$directory"
  cd "$directory"
  git checkout --quiet --detach "$commit"
  # The agent has no web console.
  [ "$programs" = wicketgate-agent ] || make --no-print-directory console
  # shellcheck disable=SC2086
  env -u CARGO_TARGET_DIR packaging/build-release.sh $(printf -- ' --package %s --bin %s' $(for it in $programs; do echo "$it" "$it"; done))
  (cd "target/${built/#dev/debug}" && sha256sum $programs) | tee "$place/sums-$(basename "$directory")"
  cd - >/dev/null
done
diff "$place/sums-one" "$place/sums-place" && echo "the same bytes in both directories: $programs"
