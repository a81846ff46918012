"""What stops a start, and what is only said: files of TLS, authorities, rules that cannot work."""

import os
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from host_agent.config import Config, load
from host_agent.host import preflight
from tests.support.certificates import Pki, make_pki
from tests.support.configurations import MINIMAL, write

SITE = MINIMAL.replace("[execution]", 'crl = "pki/ca.crl"\n[execution]')
ALICE = '[[identities]]\ncn = "alice"\nroles = ["approver"]\nowner = "alice"\n'
LIBRARIAN = '[[identities]]\ncn = "librarian"\nowner = "bob"\n'
PULL = '[[rules]]\nname = "pull"\noperations = ["git.pull"]\n'


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    (tmp_path / "pki").mkdir(mode=0o700)
    made = make_pki(tmp_path / "pki")
    made.server()
    return made


def loaded(tmp_path: Path, text: str = "") -> Config:
    return load(write(tmp_path, SITE + text))


def faults(tmp_path: Path, now: datetime) -> list[str]:
    return preflight.faults(loaded(tmp_path), uid=os.geteuid(), now=now)


def warned(tmp_path: Path, pki: Pki, text: str = "") -> list[str]:
    return preflight.warnings(loaded(tmp_path, text), uid=1000, now=pki.now)


def repository(path: Path) -> str:
    return f'[[git.repositories]]\npath = "{path}"\n'


# -- faults -----------------------------------------------------------------------------------


def test_a_good_site_has_no_fault(tmp_path: Path, pki: Pki) -> None:
    assert faults(tmp_path, pki.now) == []


@pytest.mark.promise("c11")
@pytest.mark.parametrize("mode", [0o666, 0o660])
def test_a_revocation_list_that_others_could_put_back_is_a_fault(
    tmp_path: Path, pki: Pki, mode: int
) -> None:
    pki.crl_path.chmod(mode)
    (fault,) = faults(tmp_path, pki.now)
    assert fault.startswith(f"server.crl: {pki.crl_path} is mode")


def test_a_repository_where_the_agent_may_not_look_is_neither_fault_nor_warning(
    tmp_path: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Path.stat

    def closed(path: Path, **how: bool) -> os.stat_result:
        if path == Path("/home/librarian/app"):
            raise PermissionError(13, "Permission denied")
        return look(path, **how)

    monkeypatch.setattr(Path, "stat", closed)
    text = '[[git.repositories]]\npath = "/home/librarian/app"\n'
    assert not [line for line in warned(tmp_path, pki, text) if line.startswith("git")]


def test_permissions_and_contents_are_said_together(tmp_path: Path, pki: Pki) -> None:
    (tmp_path / "pki" / "server.key").chmod(0o644)
    pki.crl_path.write_bytes(b"nonsense")
    keys = [fault.partition(":")[0] for fault in faults(tmp_path, pki.now)]
    assert keys == ["server.private_key", "server.crl"]


@pytest.mark.promise("c12")
def test_an_expired_server_certificate_is_a_fault(tmp_path: Path, pki: Pki) -> None:
    (fault, *_) = faults(tmp_path, pki.now + timedelta(days=91))
    assert fault.startswith("server.certificate: the certificate expired at")


@pytest.mark.promise("c12")
def test_a_key_of_another_certificate_is_a_fault(tmp_path: Path, pki: Pki) -> None:
    other = pki.server(file_name="other")
    (tmp_path / "pki" / "server.key").write_bytes(other.key_pem)
    assert faults(tmp_path, pki.now) == [
        "server.certificate: the private key does not belong to the certificate"
    ]


def test_a_client_certificate_does_not_serve(tmp_path: Path, pki: Pki) -> None:
    client = pki.client()
    (tmp_path / "pki" / "server.key").write_bytes(client.key_pem)
    (tmp_path / "pki" / "server.crt").write_bytes(client.pem)
    (fault,) = faults(tmp_path, pki.now)
    assert fault.startswith("server.certificate: it is not for a server")


def test_an_authority_that_is_none_is_a_fault(tmp_path: Path, pki: Pki) -> None:
    pki.ca_path.write_bytes(b"nonsense")
    (fault,) = faults(tmp_path, pki.now)
    assert fault.startswith("server.client_ca: ")


BAD_LISTS: dict[str, Callable[[Pki], bytes]] = {
    "empty": lambda _pki: b"",
    "nonsense": lambda _pki: b"nonsense",
    "expired": lambda pki: pki.make_crl(number=9, days=1, now=pki.now - timedelta(days=2)),
    "foreign": lambda pki: make_pki(now=pki.now).crl_pem,
}


@pytest.mark.promise("c11")
@pytest.mark.parametrize("kind", BAD_LISTS)
def test_a_bad_revocation_list_stops_the_start(tmp_path: Path, pki: Pki, kind: str) -> None:
    pki.crl_path.write_bytes(BAD_LISTS[kind](pki))
    (fault,) = faults(tmp_path, pki.now)
    assert fault.startswith("server.crl: ")


# -- warnings -----------------------------------------------------------------------------------


def test_a_sound_configuration_has_no_warning_but_direct(tmp_path: Path, pki: Pki) -> None:
    (tmp_path / "pki" / "ca.key").unlink()
    text = ALICE + LIBRARIAN + PULL + 'verdict = "ask"\n' + repository(tmp_path)
    found = warned(tmp_path, pki, text)
    assert [warning.partition(":")[0] for warning in found] == ["execution.runner"]


def test_direct_as_root_is_said_loudly(tmp_path: Path, pki: Pki) -> None:
    as_root = preflight.warnings(loaded(tmp_path), uid=0, now=pki.now)
    assert any("direct AS ROOT" in warning for warning in as_root)
    assert not any("AS ROOT" in warning for warning in warned(tmp_path, pki))


def test_an_authority_key_on_the_host_is_said(tmp_path: Path, pki: Pki) -> None:
    assert any("ca.key; whoever takes it" in warning for warning in warned(tmp_path, pki))


def test_no_revocation_list_is_said(tmp_path: Path, pki: Pki) -> None:
    config = load(write(tmp_path, MINIMAL))
    found = preflight.warnings(config, uid=1000, now=pki.now)
    assert any(warning.startswith("server.crl: none is set") for warning in found)


def test_an_authority_that_strict_verification_refuses_is_said(tmp_path: Path, pki: Pki) -> None:
    """Such as `openssl req -x509` makes: basicConstraints, no keyUsage."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "plain CA")])
    plain = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(pki.now - timedelta(days=1))
        .not_valid_after(pki.now + timedelta(days=100))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pki.ca_path.write_bytes(plain.public_bytes(serialization.Encoding.PEM))
    config = load(write(tmp_path, MINIMAL))
    assert preflight.check_files(config, pki.now) == []
    found = preflight.warnings(config, uid=1000, now=pki.now)
    assert any(warning.startswith("server.client_ca: the CA ") for warning in found)


def test_what_ends_soon_is_said(tmp_path: Path, pki: Pki) -> None:
    pki.server(days=5)
    pki.sign_crl(days=3)
    found = [warning.partition(":")[0] for warning in warned(tmp_path, pki)]
    assert {"server.certificate", "server.crl"} <= set(found)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ('[[identities]]\ncn = "librarian"\n', "identities[0].owner: librarian has no owner"),
        (LIBRARIAN, "identities[0]: no rule concerns librarian"),
        (LIBRARIAN + "skip_ask = true\n", "identities[0].skip_ask: has no effect"),
        ("", "identities: there are none"),
        (
            LIBRARIAN + PULL + 'verdict = "ask"\n',
            "rules[0].approvals: 1 must say yes and 0 could",
        ),
        (
            ALICE + LIBRARIAN + PULL + 'verdict = "ask"\napprovals = 2\n',
            "rules[0].approvals: 2 must say yes and 1 could",
        ),
        (
            ALICE + LIBRARIAN + PULL + 'verdict = "ask"\napprover_role = "admin"\n',
            "rules[0].approvals: 1 must say yes and 0 could",
        ),
        (
            ALICE + LIBRARIAN + PULL + 'verdict = "ask"\napprovers = ["Zoe", "alice"]\n',
            "rules[0].approvers: no identity of Zoe has the role approver",
        ),
        (
            ALICE + '[[identities]]\ncn = "phone"\nowner = "Alice"\n' + PULL + 'verdict = "ask"\n',
            "rules[0].approvals: 1 must say yes to phone and 0 could",
        ),
        (
            PULL + 'verdict = "deny"\n' + PULL.replace('"pull"', '"s"') + 'verdict = "allow"\n',
            "rules[1]: never decides, because rules[0]",
        ),
        (
            PULL + 'verdict = "deny"\nresources = ["(a+)+"]\n',
            "rules[0].resources[0]: repeats a repeat",
        ),
        ('[[git.repositories]]\npath = "/no/such"\n', "git.repositories[0].path: there is no"),
    ],
)
def test_what_is_unwise_is_said(tmp_path: Path, pki: Pki, text: str, warning: str) -> None:
    assert [found for found in warned(tmp_path, pki, text) if found.startswith(warning)]


@pytest.mark.parametrize(
    "second",
    [
        'operations = ["git.*"]\n',
        'operations = ["git.pull", "git.fetch"]\n',
    ],
)
def test_a_rule_that_still_decides_something_is_not_called_hidden(
    tmp_path: Path, pki: Pki, second: str
) -> None:
    text = PULL + 'verdict = "deny"\n[[rules]]\nname = "s"\nverdict = "allow"\n' + second
    assert not any("never decides" in warning for warning in warned(tmp_path, pki, text))


@pytest.mark.parametrize("pattern", ["tank/.*", "(/[a-z]+)?", "(a|b)+", "[a-z]+(/x)*"])
def test_ordinary_patterns_are_not_called_slow(tmp_path: Path, pki: Pki, pattern: str) -> None:
    text = PULL + f'verdict = "deny"\nresources = ["{pattern}"]\n'
    assert not any("repeats a repeat" in warning for warning in warned(tmp_path, pki, text))


BRIDGED = """
[[identities]]
cn = "chat-bridge"
roles = ["bridge"]
[channels.webhook]
url = "https://chat.example/hook"
secret_file = "webhook"
[channels.ntfy]
url = "https://ntfy.sh"
[channels.matrix]
url = "http://127.0.0.1:8008"
user = "@host-agent:home.example"
token_file = "token"
domains = ["home.example"]
trusts_local_users = true
[[approvers]]
owner = "alice"
ntfy_topic = "short"
matrix = "@alice:elsewhere.example"
channels = ["webhook", "ntfy", "matrix"]
[[approvers]]
owner = "erin"
matrix = "@erin:home.example"
channels = ["matrix"]
"""


def secret(directory: Path, name: str, text: str) -> None:
    (directory / name).write_text(text)
    (directory / name).chmod(0o600)


@pytest.mark.parametrize(
    "warning",
    [
        "channels.ntfy.url: a public server",
        "channels.ntfy.token_file: none",
        "identities[0]: chat-bridge has no [[bridges]] entry",
        "approvers[0].ntfy_topic: is short",
        "channels.matrix.trusts_local_users: whoever on this host",
        "approvers[0].matrix: is of a homeserver that is not in channels.matrix.domains",
    ],
)
def test_an_unwise_channel_is_said(tmp_path: Path, pki: Pki, warning: str) -> None:
    secret(tmp_path, "webhook", "w" * 32)
    secret(tmp_path, "token", "syt_token")
    found = warned(tmp_path, pki, BRIDGED)
    assert [line for line in found if line.startswith(warning)]
    assert not [line for line in found if line.startswith("approvers[1]")]


def test_a_secret_that_is_shared_or_short_is_a_fault(tmp_path: Path, pki: Pki) -> None:
    secret(tmp_path, "token", "syt_token")
    bridge = '[[bridges]]\ncn = "chat-bridge"\nsecret_file = "bridge"\napprovers = {U1 = "alice"}\n'
    secret(tmp_path, "webhook", "w" * 32)
    secret(tmp_path, "bridge", "b" * 32)

    def found() -> list[str]:
        config = loaded(tmp_path, BRIDGED + bridge)
        return preflight.faults(config, uid=os.geteuid(), now=pki.now)

    assert found() == []
    secret(tmp_path, "bridge", "w" * 32)
    assert len(found()) == 1
    assert "holds the secret of channels.webhook.secret_file" in found()[0]
    secret(tmp_path, "bridge", "b" * 8)
    assert found()[0].startswith("bridges[0].secret_file: ")
    assert "bbbb" not in found()[0]


# -- rules that nobody can satisfy ------------------------------------------------------------

ASK = PULL + 'verdict = "ask"\n'
TWO = ASK + "approvals = 2\n"
ERIN = ALICE.replace("alice", "erin")
SIGNAL = '[channels.signal]\nsocket = "/run/x"\naccount = "+431234567"\n'
NTFY = '[channels.ntfy]\nurl = "https://ntfy.example"\n'


def reached(owner: str, channel: str, more: str = "") -> str:
    return f'[[approvers]]\nowner = "{owner}"\nchannels = ["{channel}"]\n{more}\n'


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (ALICE + LIBRARIAN + TWO, "rules[0].approvals: 2 must say yes and 1 could,"),
        (LIBRARIAN + ALICE.replace('"alice"\n', '"bob"\n') + ASK, "1 must say yes to librarian"),
        (LIBRARIAN + ASK, "rules[0].approvals: 1 must say yes and 0 could"),
        (
            LIBRARIAN
            + ALICE
            + ERIN
            + TWO
            + SIGNAL
            + reached("alice", "signal")
            + "[approvals]\ncommand_line = false\n",
            "1 could (certificates do not count: approvals.command_line is false)",
        ),
        (
            LIBRARIAN
            + ASK
            + 'approvers = ["dan"]\n'
            + NTFY
            + reached("dan", "ntfy", 'ntfy_topic = "0123456789abcdef0"'),
            "rules[0].approvers: dan could not say yes over any channel of theirs",
        ),
        (
            LIBRARIAN + ALICE + ASK + 'identities = ["alice"]\n',
            "rules[0].identities: none of them has the role caller",
        ),
        (
            LIBRARIAN + ALICE + ASK.replace("git.pull", "zfs.*"),
            "rules[0].operations: there is no [zfs]",
        ),
        (
            LIBRARIAN + ALICE + ASK + 'resources = ["/srv/gone"]\n',
            "rules[0].resources: match nothing that the configuration lists",
        ),
        (LIBRARIAN + PULL + 'verdict = "deny"\n', "git: no rule lets anybody"),
    ],
)
def test_a_rule_that_nobody_can_satisfy_is_said(
    tmp_path: Path, pki: Pki, text: str, warning: str
) -> None:
    found = warned(tmp_path, pki, text + repository(tmp_path))
    assert [said for said in found if warning in said], found


@pytest.mark.parametrize(
    "text",
    [
        # F6: a channel comes, and certificates go on counting.
        LIBRARIAN + ALICE + ERIN + TWO + SIGNAL + reached("alice", "signal"),
        LIBRARIAN + ALICE + ERIN + TWO,
        LIBRARIAN + ASK + SIGNAL + reached("alice", "signal"),  # without any certificate
        LIBRARIAN + ALICE + ASK + 'identities = ["librarian"]\n',
        LIBRARIAN
        + ALICE
        + ASK
        + NTFY
        + reached("alice", "ntfy", 'ntfy_topic = "0123456789abcdef0"'),
        LIBRARIAN + ALICE + ASK + 'resources = ["/.*"]\n',
    ],
)
def test_a_rule_that_can_be_satisfied_is_not_warned_of(tmp_path: Path, pki: Pki, text: str) -> None:
    found = warned(tmp_path, pki, text + repository(tmp_path))
    assert not [said for said in found if said.startswith(("rules[", "git:"))], found
