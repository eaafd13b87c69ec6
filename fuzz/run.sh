#!/bin/bash
# Runs fuzz targets one after the other, on one processor, and prints a line about each. `make fuzz` runs it.
#
#   fuzz/run.sh [TARGET…]     all, without any
#   SECONDS_EACH              how long each runs (60)
#
# What was found stays in target/fuzz: in `corpus`, with which the next run continues, and in `finds`.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${CARGO_TARGET_DIR:-target}/fuzz")
# Coverage needs options of the compiler that every toolchain has; a sanitizer would need a nightly one. Memory is bounded
# by the targets' allocator.
build=(cargo fuzz build --fuzz-dir fuzz --target-dir "$out/build" --sanitizer none)
[ $# -gt 0 ] || set -- $(cd fuzz/targets && ls | sed 's/\.rs$//')
crates=$(for target; do sed -n 's/.*(wicketgate_\(.*\)::fuzz.*/\1/p' "fuzz/targets/$target.rs"; done | sort -u)
# shellcheck disable=SC2086
"${build[@]}" --no-default-features --features "$(echo $crates | tr ' ' ',')"
host=$(rustc -vV | sed -n 's/^host: //p')
failed=
for target; do
  mkdir -p "$out/corpus/$target" "$out/finds/$target"
  log=$out/$target.log
  "$out/build/$host/release/$target" "$out/corpus/$target" "fuzz/seeds/$target" -max_total_time="${SECONDS_EACH:-60}" \
    -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$out/finds/$target/" >"$log" 2>&1 || failed+=" $target"
  number() { sed -n "s/^stat::$1: *//p" "$log"; }
  echo "$target: $(number number_of_executed_units) executions, $(number average_exec_per_sec)/s," \
    "$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1), $(ls "$out/finds/$target" | wc -l) finds"
done
[ -z "$failed" ] || { echo "failed:$failed; the inputs are in $out/finds, the messages in $out/TARGET.log" >&2; exit 1; }
