#!/usr/bin/env bash
# Tries the API of a server of its own with requests that its document allows, and with others, and holds the answers
# against the document. Schemathesis is taken from PyPI into the target directory. Usage: schemathesis.sh BINARY [SECONDS]
set -euo pipefail
binary=$1
seconds=${2:-120}
here=$(cd "$(dirname "$0")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../target}
venv=$target/schemathesis-venv
[ -x "$venv/bin/st" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install -q 'schemathesis==4.32.5'; }

data=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$data"' EXIT
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
api=127.0.0.1:$(port)
"$binary" up --ipsec off --data-dir "$data/server" --listen "$api" --agent-listen "127.0.0.1:$(port)" >"$data/log" 2>&1 &
server=$!
for _ in $(seq 100); do
  curl -fs "http://$api/readyz" >/dev/null && break
  kill -0 "$server" || { cat "$data/log"; exit 1; }
  sleep 0.2
done

token=$(cat "$data/server/admin.token")
# The token stays out of the arguments, which everybody on the machine can read.
frontdoor=$(printf 'header = "Authorization: Bearer %s"\n' "$token" | curl -fs -K - "http://$api/frontdoor/v2" |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["content"][0]["id"])')
{
  printf '[parameters]\n"path.frontdoorId" = "%s"\n[headers]\nAuthorization = "Bearer %s"\n' "$frontdoor" "$token"
  cat "$here/schemathesis.toml"
} >"$data/schemathesis.toml"
# A Frontdoor that is deleted takes the other operations' subject away; a stream of events has no end.
cd "$data"
"$venv/bin/st" --config-file "$data/schemathesis.toml" run "http://$api/openapi.json" \
  --max-time "$seconds" --exclude-operation-id deleteFrontdoor --exclude-operation-id followEvents
