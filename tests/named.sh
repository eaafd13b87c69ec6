#!/bin/bash
# Measures for how long each fault of docs/TROUBLESHOOTING.md has no name, one test at a time, and writes the worst of
# RUNS runs (3) into the page. As root, on a machine that does nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
page=docs/TROUBLESHOOTING.md
runs=${RUNS:-3}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export WICKETGATE_NAMED=$target/named
mkdir -p "$target"

# The tests of the rows that have a time.
timed='^[0-9.]+ s$'
tests=$(awk -F ' \\| ' -v timed="$timed" 'NF > 3 && $(NF-1) ~ timed { print $NF }' "$page" | grep -o '`[^`]*`' | tr -d '`' | sort -u)
filter=$(sed 's/.*::\(.*\)/test(\1)/' <<<"$tests" | paste -sd '|')
[ "${1:-}" = --keep ] || rm -f "$WICKETGATE_NAMED"
for ((run = 1; run <= runs; run++)); do
  cargo nextest run --locked --workspace --no-fail-fast --test-threads 1 -E "$filter" || failed=1
done

awk -v timed="$timed" -v runs="$runs" '
  NR == FNR { if ($2 > worst[$1]) worst[$1] = $2; next }
  { sub(/(the worst of [0-9]+ runs|that of one run)/, runs == 1 ? "that of one run" : "the worst of " runs " runs") }
  NF > 3 && $(NF-1) ~ timed {
    row = $1; sub(/^\| /, "", row); gsub(/`/, "", row)
    if (row in worst) {
      # Rounded up.
      $(NF-1) = sprintf("%.1f s", int(worst[row] * 10 + 0.999) / 10)
      if (worst[row] > 5) print "later than 5 s: " row ", " $(NF-1) >"/dev/stderr"
      delete worst[row]
    } else {
      print "not measured: " row >"/dev/stderr"; failed = 1
    }
  }
  { print }
  END {
    for (row in worst) { print "no row: " row >"/dev/stderr"; failed = 1 }
    exit failed
  }' FS='\t' "$WICKETGATE_NAMED" FS=' [|] ' OFS=' | ' "$page" >"$target/named.md" || failed=$?
# Not after an error of awk itself.
[ "$(wc -l <"$target/named.md")" = "$(wc -l <"$page")" ] && cp "$target/named.md" "$page"
exit "${failed:-0}"
