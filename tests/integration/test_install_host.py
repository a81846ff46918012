"""Installed into this host's own paths, in namespaces of its own: it serves, and all is proven."""

import json
import os
from pathlib import Path

import pytest

from tests.support.packaged import prepare
from tests.support.private_host import PROGRAM, missing, program_in_place, run_private

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces of its own"),
]

SERVE = f"""
runuser -u host-agent -- {PROGRAM} serve >/dev/null 2>&1 &
agent=$!
for _ in $(seq 1200); do
  (exec 3<>/dev/tcp/127.0.0.1/9464) 2>/dev/null && break
  sleep 0.1
done
"""


@pytest.fixture(autouse=True)
def needs_namespaces() -> None:
    if (reason := missing()) is not None:
        pytest.skip(reason)


@pytest.fixture(name="prepared", scope="module")
def prepared_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the built program and what it needs; a checkout may lie where no service sees it."""
    return prepare(tmp_path_factory.mktemp("program"))


def test_a_bootstrapped_agent_serves_and_the_doctor_finds_all_well(prepared: Path) -> None:
    done = run_private(f"""
{program_in_place(prepared)}
{PROGRAM} install --bootstrap >/dev/null
{PROGRAM} config check --user host-agent --json >/dev/null
{SERVE}
{PROGRAM} doctor --json
kill $agent
""")

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"]
    states = {check["name"]: check["state"] for check in told["checks"]}
    assert set(states.values()) == {"ok"}
    names = ("store", "audit chain", "readiness", "sudoers", "wrapper systemd-stop as root")
    assert set(names) <= states.keys()


def test_the_doctor_names_what_is_broken_and_how_to_mend_it(prepared: Path) -> None:
    done = run_private(f"""
{program_in_place(prepared)}
{PROGRAM} install --bootstrap >/dev/null
{SERVE}
chmod 0666 /usr/local/lib/host-agent/protected
chmod 0644 /etc/host-agent/pki/server.key
sed -i /systemd-stop/d /etc/sudoers.d/host-agent
printf '#!/bin/bash -p\\nexit 0\\n' >/usr/local/lib/host-agent/systemd-list
chattr -a /var/log/host-agent/audit.jsonl
log=/var/log/host-agent/audit.jsonl
at=$(grep --byte-offset --only-matching --max-count=1 started $log | cut -d: -f1)
# In place: another file there would be noticed within a second, and a new one begun.
printf stopped | dd of=$log bs=1 seek=$at conv=notrunc status=none
{PROGRAM} doctor --json || echo "status $?" >&2
kill $agent
""")

    assert done.stderr == "status 1\n"
    checks = json.loads(done.stdout)["checks"]
    bad = {check["name"]: check for check in checks if check["state"] == "problem"}
    assert bad.keys() == {
        *("permissions", "audit chain", "root's list protected"),
        *("wrapper systemd-stop as root", "wrapper systemd-list as root"),
    }
    assert all(check["remedy"] for check in bad.values())
    assert "sudo refuses it" in bad["wrapper systemd-stop as root"]["sentence"]
    assert "It answers 0" in bad["wrapper systemd-list as root"]["sentence"]
    uneasy = {check["name"] for check in checks if check["state"] == "warning"}
    assert uneasy >= {"sudoers", "wrapper files", "audit log, append-only"}


FOREIGN = """#!/bin/sh
id >>/var/log/owned
exit 64
"""


def test_the_doctor_starts_no_wrapper_that_is_somebody_elses(prepared: Path) -> None:
    done = run_private(f"""
{program_in_place(prepared)}
{PROGRAM} install --bootstrap >/dev/null
cd /usr/local/lib/host-agent
for name in systemd-list systemd-logs systemd-stop; do
  rm $name
  printf '%s' '{FOREIGN}' >$name
  chmod 755 $name
done
chown nobody systemd-list
mv systemd-logs /var/lib/theirs
ln -s /var/lib/theirs systemd-logs
chmod 0775 systemd-stop
chgrp nogroup systemd-stop
{PROGRAM} doctor --json || echo "status $?" >&2
[[ ! -e /var/log/owned ]] || cat /var/log/owned >&2
{PROGRAM} install >/dev/null || echo "install $?" >&2
chown root systemd-list
rm systemd-logs systemd-stop
{PROGRAM} doctor >/dev/null || true
cat /var/log/owned
""")

    told, _, ran = done.stdout.rpartition("}\n")
    bad = {
        check["name"]: check["sentence"]
        for check in json.loads(told + "}")["checks"]
        if check["state"] == "problem" and check["name"].startswith("wrapper ")
    }
    assert set(bad) == {f"wrapper systemd-{verb}" for verb in ("list", "logs", "stop")}
    assert "systemd-list belongs to nobody: it is not started" in bad["wrapper systemd-list"]
    assert "systemd-logs is a symbolic link: it is not" in bad["wrapper systemd-logs"]
    assert "writable by the group nogroup" in bad["wrapper systemd-stop"]
    assert done.stderr.startswith("status 1\n")
    assert done.stderr.endswith("install 1\n")
    assert "uid=0" not in done.stderr
    assert "systemd-list belongs to uid 65534" in done.stderr
    assert ran.startswith("uid=0")  # the same file, once it is root's: an administrator's own


def test_the_doctor_leaves_everything_as_it_is(prepared: Path) -> None:
    done = run_private(f"""
{program_in_place(prepared)}
{PROGRAM} install --bootstrap >/dev/null
{SERVE}
kill $agent
wait $agent || true
look() {{ find /etc/host-agent /var/{{lib,log}}/host-agent /usr/local/lib/host-agent \\
  /etc/sudoers.d -type f -printf '%p %U %m %s %T@\\n' | sort; }}
before=$(look)
{PROGRAM} doctor >/dev/null || true
[[ $before == "$(look)" ]]
[[ $before == *host-agent.db* ]]
""")

    assert done.returncode == 0, done.stderr


def test_installed_and_removed_again_the_host_is_as_before_but_for_what_is_kept(
    prepared: Path,
) -> None:
    done = run_private(f"""
{program_in_place(prepared)}
look() {{ find /etc /usr/local /var/lib -xdev -not -path '*/host-agent*' -type f \\
  -printf '%p %U:%G %m %s\\n' | grep -vE '/etc/(passwd|group|shadow|gshadow|\\.pwd)' | sort; }}
before=$(look)
{PROGRAM} install --bootstrap >/dev/null
{PROGRAM} uninstall
[[ $before == "$(look)" ]]
[[ ! -e /etc/sudoers.d/host-agent && ! -e /usr/local/lib/host-agent ]]
[[ -e /etc/host-agent/config.toml && -e /root/host-agent-ca/ca.key ]]
""")

    assert done.returncode == 0, done.stderr
    assert "kept      the user and group host-agent" in done.stdout
