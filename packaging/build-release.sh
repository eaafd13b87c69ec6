#!/bin/bash
# Builds the programs for release, reproducibly: see build-environment.sh. `make packages` runs it.
#
#   packaging/build-release.sh [ARGUMENTS OF cargo build]      both programs, without any
#   PROFILE                                                    cargo's profile (release)
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/build-environment.sh
[ $# -gt 0 ] || set -- --workspace --bins
cargo build --locked --profile "${PROFILE:-release}" "$@"
