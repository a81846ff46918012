#!/usr/bin/env bash
# The main job, for real, on a temporary directory: every command is one that a person would type.
# Needs `host-agent` and git on PATH. Leaves nothing behind; exits 0 only if each step did what it says.
set -euo pipefail

root=$(mktemp -d "${TMPDIR:-/tmp}/host-agent-demo.XXXXXX")
agent_pid=
cleanup() {
    status=$?
    if [[ -n $agent_pid ]] && kill -TERM "$agent_pid" 2>/dev/null; then
        wait "$agent_pid" 2>/dev/null || true
    fi
    if ((status != 0)) && [[ -s $root/agent.log ]]; then
        printf '\nthe demo failed; the agent said last:\n' >&2
        tail -n 15 "$root/agent.log" >&2
    fi
    rm -rf "$root"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

if [[ -t 1 ]]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' plain=$'\e[0m'; else bold='' dim='' green='' plain=''; fi
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
show() { printf '  %s$ %s%s\n' "$dim" "${*//$root\//}" "$plain"; }
pass() { printf '  %sok%s %s\n' "$green" "$plain" "$*"; }
fail() { printf '  FAILED: %s\n' "$*" >&2; exit 1; }
indent() { sed 's/^/  | /'; }
field() { python3 -c 'import json, sys
value = json.load(sys.stdin)
for name in sys.argv[1].split("."):
    value = value[name]
print(value)' "$1"; }
# waiting: the id of the one request that waits.
waiting() { host-agent requests list --state pending --json | python3 -c 'import json, sys
print(json.load(sys.stdin)["requests"][0]["request_id"])'; }
# expect STATUS COMMAND...: run it, show it, and fail unless it exits with STATUS.
expect() {
    local wanted=$1 got=0
    shift
    show "$@"
    "$@" >"$root/out" 2>"$root/err" || got=$?
    cat "$root/out" "$root/err" | head -n "${LINES_SHOWN:-12}" | indent
    ((got == wanted)) || fail "exit status $got, not $wanted"
}
# as NAME: the client settings of one certificate.
as() {
    export HOST_AGENT_URL=$url HOST_AGENT_CA=$root/pki/ca.crt
    export HOST_AGENT_CERT=$root/pki/$1.crt HOST_AGENT_KEY=$root/pki/$1.key
}

export HOME=$root/home GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null NO_COLOR=1
mkdir -p "$root/home" "$root/wrappers" "$root/state"
chmod 700 "$root/state"
wrappers=$(python3 - <<'PY'
import sysconfig
from pathlib import Path
import host_agent
source = Path(host_agent.__file__).resolve().parent.parent / "wrappers"
shared = Path(sysconfig.get_path("data")) / "share/host-agent/wrappers"
print(source if source.is_dir() else shared)
PY
)
install -m 0755 "$wrappers/git" "$root/wrappers/git"

step "1. A repository to work on, with a remote that is one commit ahead"
git init -q --bare -b main "$root/origin.git"
git clone -q "$root/origin.git" "$root/app" 2>/dev/null
commit() { git -C "$1" -c user.name=demo -c user.email=demo@localhost commit -q --allow-empty -m "$2"; }
git -C "$root/app" checkout -q -b main 2>/dev/null || true
commit "$root/app" "first"
git -C "$root/app" push -q -u origin main
git clone -q "$root/origin.git" "$root/elsewhere"
echo 'version 2' >"$root/elsewhere/VERSION"
git -C "$root/elsewhere" add VERSION
commit "$root/elsewhere" "version 2"
git -C "$root/elsewhere" push -q origin main
pass "app is at $(git -C "$root/app" rev-parse --short HEAD), its remote at $(git -C "$root/elsewhere" rev-parse --short HEAD)"

step "2. Certificates: a CA, the server, two callers, one approver"
show host-agent pki init --dir pki
host-agent pki init --dir "$root/pki" >/dev/null
show host-agent pki issue --dir pki --cn localhost --usage server --out server
host-agent pki issue --dir "$root/pki" --cn localhost --usage server --san DNS:localhost --san IP:127.0.0.1 --out server >/dev/null
for name in deployer watcher alice; do
    show host-agent pki issue --dir pki --cn "$name" --usage client
    host-agent pki issue --dir "$root/pki" --cn "$name" --usage client >/dev/null
done
# Somebody else's CA signs the same name.
host-agent pki init --dir "$root/foreign" >/dev/null
host-agent pki issue --dir "$root/foreign" --cn deployer --usage client >/dev/null

step "3. The policy: reads are free, a pull needs a person"
cat >"$root/config.toml" <<TOML
[approvals]
denial_cooldowns_seconds = [] # so that a denied pull can be asked for again at once, here

[server]
bind = "127.0.0.1:0"
certificate = "pki/server.crt"
private_key = "pki/server.key"
client_ca = "pki/ca.crt"
crl = "pki/ca.crl"

[metrics]
bind = "127.0.0.1:0"

[execution]
runner = "direct"          # no sudo in a demonstration: everything runs as you
wrapper_dir = "wrappers"

[[identities]]
cn = "deployer"
owner = "bob"

[[identities]]
cn = "watcher"
owner = "carol"
autonomy = "read_only"

[[identities]]
cn = "alice"
owner = "alice"
roles = ["approver"]

[[rules]]
name = "looking is free"
operations = ["git.status", "git.log", "git.diff"]
verdict = "allow"

[[rules]]
name = "pulling needs alice"
operations = ["git.pull"]
verdict = "ask"
approvers = ["alice"]

[[git.repositories]]
path = "$root/app"
remotes = ["origin"]
branches = ["main"]
TOML
chmod 600 "$root/config.toml"
LINES_SHOWN=20 expect 0 host-agent config check --config "$root/config.toml"

step "4. The agent"
show host-agent serve --config config.toml
host-agent serve --config "$root/config.toml" 2>"$root/agent.log" &
agent_pid=$!
url=
for _ in $(seq 150); do
    url=$(sed -n 's/.*"message": "serving on \(https:[^"]*\)".*/\1/p' "$root/agent.log" | head -n 1)
    [[ -n $url ]] && break
    kill -0 "$agent_pid" 2>/dev/null || fail "the agent ended"
    sleep 0.1
done
[[ -n $url ]] || fail "the agent did not start"
pass "$url, TLS 1.3, client certificates only"

step "5. A caller reads: allowed, runs at once"
as watcher
expect 0 host-agent call git.status repository="$root/app"

step "6. A certificate of another CA, under the same name: refused in the handshake"
as deployer
export HOST_AGENT_CERT=$root/foreign/deployer.crt HOST_AGENT_KEY=$root/foreign/deployer.key
got=0
show host-agent call git.status repository="$root/app" "  # with the foreign certificate"
host-agent call git.status repository="$root/app" >"$root/out" 2>&1 || got=$?
indent <"$root/out"
((got == 69 || got == 77)) || fail "exit status $got"
pass "no handler was reached"

step "7. A read-only caller asks for a change: refused by policy"
as watcher
expect 77 host-agent call git.pull repository="$root/app" remote=origin branch=main

before=$(git -C "$root/app" rev-parse HEAD)
step "8. A caller asks for a pull: held, nothing runs; the approver says no"
as deployer
expect 75 host-agent call git.pull repository="$root/app" remote=origin branch=main --reason "release 2"
id=$(waiting)
as alice
expect 0 host-agent requests deny "${id:0:8}" --reason "not before noon"
[[ $(git -C "$root/app" rev-parse HEAD) == "$before" ]] || fail "a denied pull moved HEAD"
pass "HEAD has not moved"

step "9. It is asked for again: a new request; the caller cannot approve it, the approver can"
as deployer
expect 75 host-agent call git.pull repository="$root/app" remote=origin branch=main --reason "release 2, after noon"
id=$(waiting)
expect 77 host-agent requests approve "$id" --yes --digest "$(host-agent requests show "$id" --json | field digest)"
as alice
LINES_SHOWN=40 expect 0 host-agent requests show "$id"
digest=$(host-agent requests show "$id" --json | field digest)
expect 0 host-agent requests approve "$id" --yes --digest "$digest"

step "10. The caller learns the outcome"
as deployer
host-agent requests show "$id" --wait 30 --json >"$root/out"
[[ $(field state <"$root/out") == succeeded ]] || { indent <"$root/out"; fail "the pull did not succeed"; }
[[ $(field outcome.verified <"$root/out") == True ]] || fail "the pull was not verified"
[[ $(git -C "$root/app" rev-parse HEAD) == $(git -C "$root/elsewhere" rev-parse HEAD) ]] || fail "HEAD is not the remote's commit"
LINES_SHOWN=40 expect 0 host-agent requests show "$id"
pass "ran once, verified by looking: app is at $(git -C "$root/app" rev-parse --short HEAD)"

step "11. The agent stops; the audit log is whole, and one changed byte is found"
kill -TERM "$agent_pid"
wait "$agent_pid" || fail "the agent did not stop cleanly"
agent_pid=
expect 0 host-agent audit verify "$root/state/audit.jsonl"
sed '4s/"time":"2/"time":"3/' "$root/state/audit.jsonl" >"$root/changed.jsonl"
expect 1 host-agent audit verify "$root/changed.jsonl"

printf '\n%severy step did what it says%s\n' "$green" "$plain"
