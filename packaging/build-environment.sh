# What a build for release depends on besides the sources: nothing of the directory, the user or the time. The same commit, compiler
# and C library are meant to give the same bytes anywhere, which `make reproducible` compares. Sourced at the repository's root.

# What the directories of the sources, of what is built, and of cargo's registry are called in the executables.
places=("$PWD=/wicketgate" "$(realpath -m "${CARGO_TARGET_DIR:-target}")=/wicketgate/target" "${CARGO_HOME:-$HOME/.cargo}=/cargo")
for place in "${places[@]}"; do
  RUSTFLAGS+=" --remap-path-prefix=$place"
  CFLAGS+=" -ffile-prefix-map=$place"
done
# `--version` of a package says the version and, from a checkout, the commit and its date.
WICKETGATE_VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)$(git log -1 --abbrev=12 --date=short --format=' (%h, %cd)' 2>/dev/null || true)
# The time of all files of a package.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.lock)
export RUSTFLAGS CFLAGS CXXFLAGS=$CFLAGS WICKETGATE_VERSION SOURCE_DATE_EPOCH CARGO_INCREMENTAL=0
