#!/bin/bash
# Lists what the programs are built of, as CycloneDX 1.5 in JSON: a bill of materials of each program, from Cargo.lock, and of
# the web console, which is part of wicketgate, from console/package-lock.json. `make packages` runs it.
#
#   OUT     where the lists are put (target/packages)
set -euo pipefail
cd "$(dirname "$0")/.."
. packaging/build-environment.sh
out=$(realpath "${OUT:-${CARGO_TARGET_DIR:-target}/packages}")
# cargo-cyclonedx writes a list beside each manifest: of a copy.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z Cargo.toml Cargo.lock crates tests benches | xargs -0 cp --parents -t "$copy"
(cd "$copy" && cargo cyclonedx --quiet --format json --spec-version 1.5 --target x86_64-unknown-linux-gnu --no-build-deps)
for program in wicketgate wicketgate-agent; do
  sed "s#$copy#/wicketgate#g" "$copy/crates/${program#wicketgate-}/$program.cdx.json" >"$out/$program.cdx.json"
done
# What the console's pages are made of; what only builds or tests them is left out. `--omit dev` would leave out svelte, too.
(cd console && npm sbom --package-lock-only --sbom-format cyclonedx) | node -e '
  const list = JSON.parse(require("fs").readFileSync(0));
  const isTool = (it) => (it.properties ?? []).some((one) => one.name === "cdx:npm:package:development");
  const tools = new Set(list.components.filter(isTool).map((it) => it["bom-ref"]));
  const kept = (refs) => (refs ?? []).filter((ref) => !tools.has(ref));
  list.components = list.components.filter((it) => !tools.has(it["bom-ref"]));
  list.dependencies = list.dependencies.filter((it) => !tools.has(it.ref)).map((it) => ({ ...it, dependsOn: kept(it.dependsOn) }));
  console.log(JSON.stringify(list, null, 2));' >"$out/wicketgate-console.cdx.json"
(cd "$out" && find . -type f ! -name SHA256SUMS -printf '%P\0' | sort -z | xargs -0 sha256sum >SHA256SUMS)
