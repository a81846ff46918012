"""The audit against sudo itself: what the real sudo grants, the audit finds.

sudo answers in namespaces of its own, with accounts, a host name and an address that are those of
`FakeHost`. The fragments are generated, the same at every run.
"""

import base64
import os
import random
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from host_agent.execution.runner import TOOLS, ToolRunner
from host_agent.sudoers.audit import SUDOERS, Auditor
from host_agent.sudoers.values import AuditReport, Severity
from tests.support.sudoers_cases import AUDIENCE, NOW, FakeHost, FakeSource

HOST = FakeHost(addresses=frozenset({"10.1.2.5/24", "2001:db8::7/64"}))
SCRIPT = r"""
set -euo pipefail
mount -t tmpfs tmpfs /run
mkdir -p /run/etc/sudoers.d
cp /etc/passwd /etc/group /run/etc/
echo "passwd: files
group: files
hosts: files" >/run/etc/nsswitch.conf
for user in host-agent:990 librarian:1001; do
  echo "${user%:*}:x:${user#*:}:${user#*:}::/nonexistent:/bin/sh" >>/run/etc/passwd
  echo "${user%:*}:x:${user#*:}:" >>/run/etc/group
done
echo wrappers:x:800:host-agent >>/run/etc/group
echo "10.1.2.5 box.example.org box" >/run/etc/hosts
printf '%s:*:20000::::::\n' root host-agent librarian >/run/etc/shadow
touch /run/etc/sudoers
chmod 0440 /run/etc/sudoers /run/etc/shadow
for file in passwd group shadow nsswitch.conf hosts sudoers sudoers.d; do
  mount --bind "/run/etc/$file" "/etc/$file"
done
hostname box
ip link add bridge type bridge
ip address add 10.1.2.5/24 dev bridge
ip address add 2001:db8::7/64 dev bridge nodad
ip link set bridge up
echo ready
while read -r kind fragment; do
  base64 -d <<<"$fragment" >/etc/sudoers
  code=0
  if [[ $kind == shell ]]; then
    sudo -n -l -U host-agent -u root /bin/sh >/dev/null 2>&1 </dev/null || code=$?
  else
    setpriv --reuid=990 --regid=990 --groups=990,800 \
      sudo -n WIDGET=1 /usr/bin/true </dev/null >&2 || code=$?
  fi
  echo "$code"
done
"""


class RealSudo:
    """sudo, asked about one fragment after another."""

    def __init__(self) -> None:
        command = ["unshare", "--mount", "--net", "--uts", "bash", "-c", SCRIPT]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self._line() != "ready\n":
            self.close()
            pytest.skip("needs namespaces with a network interface of a test's own")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def may(self, kind: str, fragment: str) -> bool:
        """Return whether `host-agent` may run a shell as root, or set a variable for `true`."""
        assert self._process.stdin is not None
        text = base64.b64encode(fragment.encode()).decode()
        self._process.stdin.write(f"{kind} {text}\n")
        self._process.stdin.flush()
        return self._line() == "0\n"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0
        or not os.access(TOOLS["cvtsudoers"], os.X_OK)
        or not all(map(shutil.which, ("sudo", "unshare", "ip", "setpriv"))),
        reason="needs root, sudo with cvtsudoers, util-linux and iproute2",
    ),
]


@pytest.fixture(scope="module")
def sudo() -> Iterator[RealSudo]:
    real = RealSudo()
    yield real
    real.close()


async def audit(fragment: str) -> AuditReport:
    auditor = Auditor(tool=ToolRunner(), host=HOST, audience=AUDIENCE)
    return await auditor.audit(FakeSource({SUDOERS: fragment}), now=NOW)


USERS = (
    *("host-agent", "Host-Agent", "hOST-aGENT", "%wrappers", "%Wrappers", "#990", "%#800", "ALL"),
    *("alice", "host-agents", "%sudo"),
)
HOSTS = (
    *("ALL", "box", "BOX.example.org", "bo*", "10.1.2.5", "10.1.2.0", "10.1.2.0/24", "10.1.0.0"),
    *("10.1.0.0/16", "10.9.2.0/0.0.255.0", "10.1.9.0/255.255.0.255", "10.1.2.6", "web"),
    *("2001:db8::", "2001:db8::/64", "2001:db8:0:1::", "2001:db8::7"),
)
RUN_AS = ("(root)", "(Root)", "(ALL)", "(rooT, daemon)", "", "(#0)")
COMMENTS = ("", "", " # old", " # old \\", " #x\\", " #")
SETTINGS = (
    *("Defaults !case_insensitive_user", "Defaults case_insensitive_user"),
    *("Defaults !case_insensitive_group", "Defaults:alice !requiretty"),
    'Defaults passprompt="# no comment", !insults',
    'Defaults passprompt="\\\\" # no comment"',
)


def fragment(seed: int) -> str:
    """Return a fragment that grants or denies a shell, in one of very many ways."""
    dice = random.Random(seed)

    def some(names: tuple[str, ...]) -> str:
        chosen = dice.sample(names, dice.choice((1, 1, 2, 3)))
        return ", ".join(dice.choice(("", "", "", "!")) + name for name in chosen)

    lines = []
    for _ in range(dice.choice((1, 1, 2, 3))):
        if dice.random() < 0.3:
            lines.append(dice.choice(SETTINGS) + dice.choice(COMMENTS))
            continue
        command = dice.choice(("/bin/sh", "/bin/sh", "/bin/sh", "ALL", "!ALL"))
        gap = dice.choice((" ", " ", " \\\n  "))
        users, hosts = some(USERS), some(HOSTS)
        lines.append(
            f"{users}{gap}{hosts} = {dice.choice(RUN_AS)} {command}{dice.choice(COMMENTS)}"
        )
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("seeds", [range(start, start + 40) for start in range(0, 240, 40)])
async def test_the_audit_and_sudo_agree_about_a_shell(sudo: RealSudo, seeds: range) -> None:
    outcomes = set()
    for text in map(fragment, seeds):
        found = await audit(text)
        # What runs as another user than root, such as an account `Root`, is one step milder.
        is_found = any(
            finding.rule in {"shell", "all-commands", "nopasswd-all"}
            and finding.severity is Severity.CRITICAL
            and finding.reason.startswith("For host-agent ")
            for finding in found.findings
        )
        grants = sudo.may("shell", text)
        outcomes.add(grants)
        assert is_found or not grants, text
        if " !ALL" not in text:  # a denial for one run-as user leaves the others, which are found
            assert grants == is_found, text
        assert found.scan_ok, (text, found.findings)
    assert outcomes == {True, False}


GRANT = 'host-agent ALL = (root) NOPASSWD: /usr/bin/true ""\n'
SCOPES = (
    *("", ":host-agent", ":Host-Agent", ":%Wrappers", ":#990", ":alice", ":ALL, !Host-Agent"),
    *(">root", ">Root", ">daemon", ">ALL", "@box", "@10.1.2.0", "@10.1.0.0", "@ALL, !10.1.2.0"),
    *("!/bin/true", "!/usr/bin/true", "!/usr/bin/false", "!/usr/bin/", "!ALL"),
)


@pytest.mark.parametrize("before", ["", "Defaults:alice !requiretty # old \\\n"])
@pytest.mark.parametrize("scope", SCOPES)
async def test_the_audit_and_sudo_agree_for_whom_a_setting_holds(
    sudo: RealSudo, scope: str, before: str
) -> None:
    for text in (
        f"{before}Defaults{scope} setenv\n{GRANT}",
        f"{GRANT}{before}Defaults{scope} setenv\n",
    ):
        found = await audit(text)

        holds = any(
            finding.rule == "setenv" and finding.reason.startswith("For host-agent:")
            for finding in found.findings
        )
        assert sudo.may("variable", text) == holds, text
        assert found.scan_ok
