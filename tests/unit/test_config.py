"""What a configuration means, and every way in which one is refused."""

import os
import pwd
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from host_agent.config import Config, RunnerKind, VerdictKind, load, parse, split_bind
from host_agent.errors import ConfigurationError
from host_agent.identity.registry import Autonomy, Role
from host_agent.operations.git.section import GitSection
from tests.support.configurations import MINIMAL, write


def faults_of(path: Path) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    return caught.value.faults


def faults_in(directory: Path, text: str) -> list[str]:
    return faults_of(write(directory, MINIMAL + text))


def loaded(directory: Path, text: str = "") -> Config:
    return load(write(directory, MINIMAL + text))


# -- what it means -------------------------------------------------------------------------------


def test_a_small_configuration_has_the_documented_defaults(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    assert config.server.bind == "127.0.0.1:8443"
    assert config.server.crl is None
    assert config.server.max_connections == 2000
    assert config.server.drain_seconds == 10
    assert (config.limits.asks_per_second, config.limits.ask_burst) == (50, 100)
    assert (config.limits.decisions_per_second, config.limits.decision_burst) == (50, 100)
    assert config.limits.held_off_after == 20
    assert config.audit.max_bytes == 104_857_600
    assert config.audit.retain_days == 90
    assert config.metrics.bind == "127.0.0.1:9464"
    assert config.execution.timeout_seconds == 60
    assert config.execution.max_output_bytes == 1_048_576
    assert config.execution.max_concurrent == 8
    assert config.approvals.ttl_seconds == 1800
    assert (config.approvals.max_pending, config.approvals.max_pending_per_caller) == (500, 20)
    assert config.approvals.command_line is True
    assert config.approvals.cooldown_seconds == 600
    assert config.approvals.escalate_seconds == 120
    assert (config.identities, config.rules, config.section(GitSection)) == ((), (), None)


def test_runner_is_sudo_where_nothing_is_said(tmp_path: Path) -> None:
    config = load(write(tmp_path, MINIMAL.partition("[execution]")[0]))
    assert config.execution.runner is RunnerKind.SUDO
    assert config.execution.wrapper_dir == Path("/usr/local/lib/host-agent")


def test_relative_paths_start_at_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = load(Path("config.toml"))
    assert config.server.private_key == tmp_path / "pki/server.key"
    assert config.audit.path == tmp_path / "state/audit.jsonl"
    assert config.store.url == f"sqlite:///{tmp_path}/state/host-agent.db"
    assert config.store.path == tmp_path / "state/host-agent.db"
    assert config.execution.wrapper_dir == tmp_path / "wrappers"
    assert config.files == (tmp_path / "config.toml",)


def test_absolute_paths_stay(tmp_path: Path) -> None:
    config = loaded(tmp_path, '[audit]\npath = "/a/b"\n[store]\nurl = "sqlite:////c/d.db"\n')
    assert (config.audit.path, config.store.path) == (Path("/a/b"), Path("/c/d.db"))


def test_host_is_this_host(tmp_path: Path) -> None:
    assert loaded(tmp_path).host == socket.gethostname()


def test_an_identity_acts_for_itself_by_default(tmp_path: Path) -> None:
    config = loaded(tmp_path, '[[identities]]\ncn = "librarian"\n')
    (identity,) = config.identities
    assert identity.acts_for == "librarian"
    assert identity.roles == (Role.CALLER,)
    assert identity.autonomy is Autonomy.SUPERVISED
    assert not identity.skip_ask


def test_owners_are_compared_case_folded(tmp_path: Path) -> None:
    config = loaded(tmp_path, '[[identities]]\ncn = "librarian"\nowner = "ALICE"\n')
    assert config.identities[0].acts_for == "alice"


def test_a_whole_rule_is_taken(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        """
[[identities]]
cn = "librarian"
[[rules]]
name = "resetting needs alice or bob"
operations = ["git.reset", "zfs.*"]
resources = ["/srv/.*"]
identities = ["librarian"]
verdict = "ask"
approvals = 2
approvers = ["alice", "bob"]
approver_role = "admin"
always_ask = true
require_reason = true
ttl_seconds = 600
""",
    )
    (rule,) = config.rules
    assert rule.verdict is VerdictKind.ASK
    assert rule.operations == ("git.reset", "zfs.*")
    assert (rule.approvals, rule.approvers, rule.approver_role) == (2, ("alice", "bob"), "admin")
    assert (rule.always_ask, rule.require_reason, rule.ttl_seconds) == (True, True, 600)


def test_repositories_are_taken(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        '[[git.repositories]]\npath = "/srv/app"\nremotes = ["origin"]\n'
        'branches = ["main", "release/.*"]\n[[git.repositories]]\npath = "/srv/b"\n',
    )
    git = config.section(GitSection)
    assert git is not None
    first, second = git.repositories
    assert (first.path, first.remotes, first.branches) == (
        "/srv/app",
        ("origin",),
        ("main", "release/.*"),
    )
    assert (second.remotes, second.branches) == ((), ())


def test_values_are_frozen(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        config.limits.ask_burst = 3  # type: ignore[misc]


def test_parse_is_load_without_files(tmp_path: Path) -> None:
    path = write(tmp_path)
    server = {name: f"pki/{file}" for name, file in FILES.items()}
    parsed = parse(
        {"server": server, "execution": {"runner": "direct", "wrapper_dir": "wrappers"}},
        base=tmp_path,
    )
    assert parsed.model_dump() == load(path).model_dump()
    assert parsed.files == ()


FILES = {"certificate": "server.crt", "private_key": "server.key", "client_ca": "ca.crt"}


# -- faults --------------------------------------------------------------------------------------


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    faults = faults_in(
        tmp_path,
        """
[limits]
ask_burst = 0
[nonsense]
[[identities]]
cn = "a b"
[[identities]]
cn = "librarian"
unix_user = "no-such-user-here"
[[identities]]
cn = "librarian"
[[rules]]
name = "r"
operations = ["git.pull"]
verdict = "allow"
[[rules]]
name = "r"
operations = ["git.pull", "git.nonsense"]
resources = ["("]
identities = ["stranger"]
verdict = "maybe"
[[git.repositories]]
path = "/srv/../etc"
""",
    )
    assert [fault.partition(":")[0] for fault in faults] == [
        "limits.ask_burst",
        "identities[0].cn",
        "rules[1].operations[1]",
        "rules[1].resources[0]",
        "rules[1].verdict",
        "git.repositories[0].path",
        "nonsense",
        "identities[2].cn",
        "rules[1].name",
        "rules[1].identities[0]",
        "identities[1].unix_user",
    ]


VALUE_FAULTS = {
    # bind
    '[metrics]\nbind = "127.0.0.1"': "metrics.bind: must be host:port",
    '[metrics]\nbind = "::1:9464"': "metrics.bind: must be host:port",
    '[metrics]\nbind = "127.0.0.1:65536"': "metrics.bind: must be host:port",
    '[metrics]\nbind = "127.0.0.1:٣"': "metrics.bind: must be host:port",
    '[metrics]\nbind = "300.0.0.1:80"': "metrics.bind: ",
    '[metrics]\nbind = "0.0.0.0:9464"': "metrics.bind: must be a loopback address",
    '[metrics]\nbind = "192.0.2.1:9464"': "metrics.bind: must be a loopback address",
    '[metrics]\nbind = "monitor:9464"': "metrics.bind: must be a loopback address",
    # limits
    "[limits]\nasks_per_second = 0": "limits.asks_per_second: must be at least 1",
    "[limits]\nasks_per_second = 0.5": "limits.asks_per_second: must be at least 1",
    "[limits]\nasks_per_second = -1": "limits.asks_per_second: must be at least 1",
    "[limits]\nasks_per_second = nan": "limits.asks_per_second: must be a finite number",
    "[limits]\nasks_per_second = inf": "limits.asks_per_second: must be a finite number",
    "[limits]\ndecision_burst = 0": "limits.decision_burst: must be at least 1",
    "[limits]\nask_burst = true": "limits.ask_burst: must be an integer",
    '[limits]\nask_burst = "100"': "limits.ask_burst: must be an integer",
    "[limits]\nask_burst = 1.5": "limits.ask_burst: must be an integer",
    "[limits]\nheld_off_after = 0": "limits.held_off_after: must be at least 1",
    "[limits]\nask_burst = 99999999999999999999": "limits.ask_burst: is beyond 2**53",
    # approvals
    "[approvals]\nttl_seconds = 59": "approvals.ttl_seconds: must be at least 60",
    "[approvals]\nttl_seconds = 86401": "approvals.ttl_seconds: must be at most 86400",
    "[approvals]\nttl_seconds = -1": "approvals.ttl_seconds: must be at least 60",
    "[approvals]\nmax_pending = 0": "approvals.max_pending: must be at least 1",
    "[approvals]\nmax_pending = 100001": "approvals.max_pending: must be at most 100000",
    "[approvals]\ncommand_line = 1": "approvals.command_line: must be a boolean",
    "[approvals]\ncooldown = 1": "approvals.cooldown: is not a known key",
    "[approvals]\nttl_second = 60": "approvals.ttl_second: is not a known key; did you mean ttl_se",
    # store and audit
    '[store]\nurl = "sqlite://"': "store.url: must be sqlite:///",
    '[store]\nurl = "sqlite:///:memory:"': "store.url: must be sqlite:///",
    '[store]\nurl = "sqlite:///a?mode=ro"': "store.url: must be sqlite:///",
    '[store]\nurl = "postgresql://db"': "store.url: must be sqlite:///",
    '[store]\nurl = "sqlite://host/x.db"': "store.url: must be sqlite:///",
    '[store]\nurl = "x.db"': "store.url: must be sqlite:///",
    '[store]\nurl = ""': "store.url: must be sqlite:///",
    '[store]\nurl = "sqlite:///"': "store.url: must name a file",
    '[audit]\npath = ""': "audit.path: must name a file",
    "[audit]\npath = 3": "audit.path: must be a string",
    '[audit]\npath = "a\\u0000b"': "audit.path: holds a control character",
    "[audit]\nretain_days = 1979-05-27": "audit.retain_days: must not be a date",
    # identities
    '[[identities]]\ncn = "librarian*"': "identities[0].cn: must be 1 to 64",
    '[[identities]]\ncn = "0"': "identities[0].cn: must be 1 to 64",
    '[[identities]]\ncn = "root"': "identities[0].cn: must be 1 to 64",
    '[[identities]]\ncn = "libr\u0430rian"': "identities[0].cn: must be 1 to 64",
    '[[identities]]\nowner = "alice"': "identities[0].cn: is required",
    '[[identities]]\ncn = "a"\nowner = ""': "identities[0].owner: must begin",
    '[[identities]]\ncn = "a"\nroles = []': "identities[0].roles: must not be empty",
    '[[identities]]\ncn = "a"\nroles = ["boss"]': "identities[0].roles[0]: must be 'caller'",
    '[[identities]]\ncn = "a"\nroles = "admin"': "identities[0].roles: must be an array",
    '[[identities]]\ncn = "a"\nautonomy = "complete"': "identities[0].autonomy: must be",
    '[[identities]]\ncn = "a"\nskip_ask = 1': "identities[0].skip_ask: must be a boolean",
    '[[identities]]\ncn = "a"\nfingerprint = "sha256:AB"': "identities[0].fingerprint: must be",
    '[[identities]]\ncn = "a"\nallowed_operations = []': "identities[0].allowed_operations: is not",
    '[[identities]]\ncn = "a"\nunix_user = "root"': "identities[0].unix_user: is uid 0",
    '[[identities]]\ncn = "a"\nunix_user = "0"': "identities[0].unix_user: must be the name",
    "[identities]\ncn = 'a'": "identities: must be an array",
    # git
    "[git]\nroot = 1": "git.root: is not a known key",
    '[[git.repositories]]\npath = "srv/app"': "git.repositories[0].path: must be absolute",
    '[[git.repositories]]\npath = "/"': "git.repositories[0].path: must be absolute",
    '[[git.repositories]]\npath = "/srv/app/"': "git.repositories[0].path: must be absolute",
    '[[git.repositories]]\npath = "/srv//app"': "git.repositories[0].path: must be absolute",
    '[[git.repositories]]\npath = "//srv/app"': "git.repositories[0].path: must be absolute",
    '[[git.repositories]]\npath = "/srv/./app"': "git.repositories[0].path: must be absolute",
    '[[git.repositories]]\npath = "/srv/../app"': "git.repositories[0].path: must be absolute",
    '[[git.repositories]]\npath = "/srv/\u0430pp"': "git.repositories[0].path: must be vis",
    '[[git.repositories]]\npath = "/a"\nremotes = ["--x"]': "git.repositories[0].remotes[0]: must",
    '[[git.repositories]]\npath = "/a"\nremotes = ["ext::sh"]': "git.repositories[0].remotes[0]",
    '[[git.repositories]]\npath = "/a"\nbranches = ["["]': "git.repositories[0].branches[0]: is",
    '[[git.repositories]]\npath="/a"\n[[git.repositories]]\npath="/a"': "git.repositories[1].path",
}


@pytest.mark.parametrize(("text", "fault"), VALUE_FAULTS.items())
def test_a_bad_value_is_named_by_its_key(tmp_path: Path, text: str, fault: str) -> None:
    (found,) = faults_in(tmp_path, text)
    assert found.startswith(fault)


RULE_FAULTS = {
    'operations = ["git.nonsense"]': "rules[0].operations[0]: is no operation",
    'operations = ["*"]': "rules[0].operations[0]: is no operation",
    'operations = ["gi*"]': "rules[0].operations[0]: is no operation",
    'operations = ["git.p*"]': "rules[0].operations[0]: is no operation",
    'operations = ["docker.*"]': "rules[0].operations[0]: is no operation",
    'operations = ["git"]': "rules[0].operations[0]: is no operation",
    "operations = []": "rules[0].operations: must not be empty",
    'operations = "git.pull"': "rules[0].operations: must be an array",
    'resources = ["a("]': "rules[0].resources[0]: is not a regular expression",
    'resources = ["a{9999999999999}"]': "rules[0].resources[0]: is not a regular expression",
    'resources = ["[[a]"]': "rules[0].resources[0]: is not a regular expression",
    'resources = ["t\u0430nk/.*"]': "rules[0].resources[0]: holds a character that is not ASCII",
    'resources = [""]': "rules[0].resources[0]: ",
    "resources = []": "rules[0].resources: must not be empty",
    f'resources = ["{"a" * 257}"]': "rules[0].resources[0]: ",
    f'resources = ["{"(" * 120}{")" * 120}"]': None,
    "identities = []": "rules[0].identities: must not be empty",
    'identities = ["stranger"]': "rules[0].identities[0]: names no identity",
    'identities = ["librarian*"]': "rules[0].identities[0]: must be",
    'verdict = "permit"': "rules[0].verdict: must be",
    "approvals = 0": "rules[0].approvals: must be at least 1",
    "approvals = true": "rules[0].approvals: must be an integer",
    "approvers = []": "rules[0].approvers: must not be empty",
    'approver_role = "caller"': "rules[0].approver_role: must be",
    "ttl_seconds = 59": "rules[0].ttl_seconds: must be at least 60",
    "ttl_seconds = 86401": "rules[0].ttl_seconds: must be at most 86400",
    'name = ""': "rules[0].name: ",
    'name = "a\u202eb"': "rules[0].name: must be visible",
    'name = "a\\nb"': "rules[0].name: holds a control character",
    "on_timeout = 'allow'": "rules[0].on_timeout: is not a known key",
}


@pytest.mark.parametrize(("line", "fault"), RULE_FAULTS.items())
def test_a_bad_rule_is_named_by_its_key(tmp_path: Path, line: str, fault: str | None) -> None:
    keys = {"name": '"r"', "operations": '["git.pull"]', "verdict": '"ask"'}
    key, _, value = line.partition(" = ")
    keys[key] = value
    text = "[[rules]]\n" + "\n".join(f"{key} = {value}" for key, value in keys.items())
    if fault is None:
        assert len(loaded(tmp_path, text).rules) == 1
        return
    found = faults_in(tmp_path, text)
    assert found[0].startswith(fault)


@pytest.mark.parametrize(
    ("verdict", "line", "key"),
    [
        ("allow", "approvals = 1", "approvals"),
        ("allow", "ttl_seconds = 60", "ttl_seconds"),
        ("allow", "always_ask = true", "always_ask"),
        ("deny", 'approvers = ["alice"]', "approvers"),
        ("deny", "require_reason = true", "require_reason"),
    ],
)
def test_a_key_that_a_verdict_never_consults_is_a_fault(
    tmp_path: Path, verdict: str, line: str, key: str
) -> None:
    text = f'[[rules]]\nname = "r"\noperations = ["git.pull"]\nverdict = "{verdict}"\n{line}\n'
    assert faults_in(tmp_path, text) == [f"rules[0]: {key}: has no meaning with verdict {verdict}"]


def test_a_rule_may_name_operations_that_are_not_configured(tmp_path: Path) -> None:
    text = '[[rules]]\nname = "r"\noperations = ["pct.destroy", "zfs.*"]\nverdict = "deny"\n'
    assert loaded(tmp_path, text).rules[0].operations == ("pct.destroy", "zfs.*")


@pytest.mark.parametrize("key", FILES)
def test_a_missing_server_file_is_a_fault(tmp_path: Path, key: str) -> None:
    path = write(tmp_path)
    (tmp_path / "pki" / FILES[key]).unlink()
    (fault,) = faults_of(path)
    assert fault.startswith(f"server.{key}: {tmp_path}/pki/{FILES[key]} cannot be read")


@pytest.mark.parametrize("key", FILES)
def test_a_server_key_left_out_is_a_fault(tmp_path: Path, key: str) -> None:
    text = "\n".join(line for line in MINIMAL.splitlines() if not line.startswith(key))
    assert faults_of(write(tmp_path, text)) == [f"server.{key}: is required"]


def test_a_missing_crl_that_is_configured_is_a_fault(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL.replace("[execution]", 'crl = "ca.crl"\n[execution]'))
    (fault,) = faults_of(path)
    assert fault.startswith("server.crl: ")


def test_a_missing_wrapper_directory_is_a_fault_where_an_adapter_needs_it(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + '[[git.repositories]]\npath = "/srv/app"\n')
    (tmp_path / "wrappers").rmdir()
    (fault,) = faults_of(path)
    assert fault.startswith("execution.wrapper_dir: ")


def test_a_unix_user_is_required_with_sudo(tmp_path: Path) -> None:
    text = MINIMAL.replace('runner = "direct"', "") + '[[identities]]\ncn = "librarian"\n'
    assert faults_of(write(tmp_path, text)) == [
        'identities[0].unix_user: is required of a caller with runner sudo (identity "librarian")'
    ]


def test_who_only_decides_needs_no_unix_user(tmp_path: Path) -> None:
    text = MINIMAL.replace('runner = "direct"', "")
    text += '[[identities]]\ncn = "alice"\nroles = ["approver"]\n'
    assert load(write(tmp_path, text)).identities[0].unix_user is None


def test_a_unix_user_must_exist(tmp_path: Path) -> None:
    text = MINIMAL.replace('runner = "direct"', "")
    text += '[[identities]]\ncn = "librarian"\nunix_user = "no-such-user-here"\n'
    assert faults_of(write(tmp_path, text)) == [
        'identities[0].unix_user: is no user of this host (identity "librarian")'
    ]


@pytest.mark.parametrize(
    ("user", "accounts", "alike"),
    [
        ("Root", ("Root",), "root"),
        ("Daemon", ("Daemon", "daemon"), "daemon"),
        ("Ann", ("Ann",), ""),
    ],
)
def test_a_unix_user_that_sudo_takes_for_another_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    user: str,
    accounts: tuple[str, ...],
    alike: str,
) -> None:
    entries = [pwd.struct_passwd((name, "x", 1500, 1500, "", "/", "")) for name in accounts]
    monkeypatch.setattr(pwd, "getpwall", lambda: entries)
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: entries[0])
    text = MINIMAL.replace('runner = "direct"', "")
    path = write(tmp_path, text + f'[[identities]]\ncn = "a"\nunix_user = "{user}"\n')
    if not alike:
        assert load(path).identities[0].unix_user == user
        return
    (fault,) = faults_of(path)
    assert fault.startswith(
        f"identities[0].unix_user: differs from the account {alike} by its case"
    )


def test_another_unix_user_is_refused_with_direct(tmp_path: Path) -> None:
    user = "daemon" if os.geteuid() != 1 else "bin"
    (fault,) = faults_in(tmp_path, f'[[identities]]\ncn = "a"\nunix_user = "{user}"\n')
    assert fault.startswith("identities[0].unix_user: is another user")


def test_an_existing_unix_user_is_taken_with_sudo(tmp_path: Path) -> None:
    text = MINIMAL.replace('runner = "direct"', "")
    text += '[[identities]]\ncn = "librarian"\nunix_user = "daemon"\n'
    assert load(write(tmp_path, text)).identities[0].unix_user == "daemon"


def test_toml_faults_have_their_line(tmp_path: Path) -> None:
    (fault,) = faults_of(write(tmp_path, "[server]\ncertificate = \n"))
    assert fault.startswith(f"{tmp_path}/config.toml: is not TOML: ")
    assert "line 2" in fault


@pytest.mark.parametrize(
    ("bind", "host", "port"),
    [
        ("127.0.0.1:8443", "127.0.0.1", 8443),
        ("[::1]:8443", "::1", 8443),
        ("[0:0:0:0:0:0:0:1]:0", "::1", 0),
        ("localhost:80", "localhost", 80),
        ("agent.example:65535", "agent.example", 65535),
    ],
)
def test_binds_are_split(bind: str, host: str, port: int) -> None:
    assert split_bind(bind) == (host, port)


@pytest.mark.parametrize(
    "bind",
    ["", ":80", "a:", "a:b", "a b:1", "[::1]", "::1:1", "[x]:1", "a:1\n", "a:-1", "a:123456"],
)
def test_bad_binds_are_refused(bind: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        split_bind(bind)


# -- conf.d --------------------------------------------------------------------------------------

RULE = '[[rules]]\nname = "{name}"\noperations = ["git.pull"]\nverdict = "{verdict}"\n'


def test_parts_are_merged_in_name_order(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + RULE.format(name="main", verdict="deny"))
    write(tmp_path, RULE.format(name="second", verdict="deny"), name="conf.d/20.toml")
    write(tmp_path, RULE.format(name="first", verdict="allow"), name="conf.d/10.toml")
    write(tmp_path, "[limits]\nask_burst = 7\n", name="conf.d/30.toml")
    config = load(path)
    assert [rule.name for rule in config.rules] == ["main", "first", "second"]
    assert config.limits.ask_burst == 7
    assert [file.name for file in config.files] == ["config.toml", "10.toml", "20.toml", "30.toml"]


def test_tables_of_two_files_merge(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "[limits]\nask_burst = 7\n")
    write(tmp_path, "[limits]\ndecision_burst = 8\n", name="conf.d/a.toml")
    limits = load(path).limits
    assert (limits.ask_burst, limits.decision_burst) == (7, 8)


def test_repositories_of_two_files_append(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + '[[git.repositories]]\npath = "/a"\n')
    write(tmp_path, '[[git.repositories]]\npath = "/b"\n', name="conf.d/a.toml")
    config = load(path)
    git = config.section(GitSection)
    assert git is not None
    assert [repository.path for repository in git.repositories] == ["/a", "/b"]


def test_a_key_given_twice_is_a_fault_that_names_both_files(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    write(tmp_path, "[limits]\nask_burst = 7\n", name="conf.d/a.toml")
    write(tmp_path, "[limits]\nask_burst = 7\n", name="conf.d/b.toml")
    assert faults_of(path) == [
        "limits.ask_burst: is given twice, in conf.d/a.toml and in conf.d/b.toml"
    ]


def test_a_table_and_a_value_of_one_key_do_not_merge(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    write(tmp_path, "limits = 3\n", name="conf.d/a.toml")
    write(tmp_path, "[limits]\nask_burst = 7\n", name="conf.d/b.toml")
    assert faults_of(path)[0].startswith("limits: is given twice")


def test_faults_name_the_file_they_are_in(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + RULE.format(name="r", verdict="deny"))
    write(tmp_path, RULE.format(name="s", verdict="perhaps"), name="conf.d/a.toml")
    assert faults_of(path) == [
        "rules[1].verdict: must be 'allow', 'ask' or 'deny' (rule \"s\", in conf.d/a.toml)"
    ]


def test_rules_of_two_files_with_one_name_are_a_fault(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + RULE.format(name="r", verdict="deny"))
    write(tmp_path, RULE.format(name="r", verdict="allow"), name="conf.d/a.toml")
    assert faults_of(path) == ["rules[1].name: is the same as an earlier one (in conf.d/a.toml)"]


def test_only_toml_files_of_conf_d_are_read(tmp_path: Path) -> None:
    path = write(tmp_path)
    for name in ("a.toml~", ".a.toml", "a.toml.dpkg-old", "README"):
        write(tmp_path, "nonsense", name=f"conf.d/{name}")
    assert load(path).files == (path,)


# -- C42, C43: what is not a configuration file --------------------------------------------------


@pytest.mark.promise("c43")
def test_a_missing_file_is_no_empty_configuration(tmp_path: Path) -> None:
    (fault,) = faults_of(tmp_path / "config.toml")
    assert fault.startswith(f"{tmp_path}/config.toml: cannot be read")


@pytest.mark.promise("c43")
def test_a_symlink_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    assert faults_of(link) == [f"{link}: cannot be read (it is a symbolic link)"]


@pytest.mark.promise("c43")
def test_a_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    os.mkfifo(path, 0o600)
    assert faults_of(path) == [f"{path}: is not a regular file"]


@pytest.mark.promise("c43")
def test_an_endless_device_is_refused() -> None:
    assert faults_of(Path("/dev/zero"))[0].startswith("/dev/zero: is not a regular file")


@pytest.mark.promise("c43")
def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert faults_of(tmp_path) == [f"{tmp_path}: is not a regular file"]


@pytest.mark.promise("c43")
def test_a_huge_file_is_read_to_the_limit_only(tmp_path: Path) -> None:
    path = write(tmp_path)
    os.truncate(path, 1 << 30)
    assert faults_of(path) == [f"{path}: is larger than 1048576 bytes"]


@pytest.mark.promise("c43")
def test_duplicate_keys_are_refused(tmp_path: Path) -> None:
    (fault,) = faults_in(tmp_path, "[limits]\nask_burst = 1\nask_burst = 2\n")
    assert "is not TOML" in fault


@pytest.mark.promise("c43")
def test_a_file_replaced_by_rename_is_read_whole(tmp_path: Path) -> None:
    path = write(tmp_path)
    fresh = write(tmp_path, MINIMAL + "[limits]\nask_burst = 7\n", name="fresh.toml")
    fresh.replace(path)
    assert load(path).limits.ask_burst == 7


@pytest.mark.promise("c43")
@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_a_file_that_others_may_write_is_not_read(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path)
    path.chmod(mode)
    (fault,) = faults_of(path)
    assert f"is mode {mode:04o}" in fault


@pytest.mark.promise("c43")
@pytest.mark.root
def test_a_file_of_another_user_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path)
    os.chown(path, 12345, -1)
    (fault,) = faults_of(path)
    assert "belongs to uid 12345" in fault
    assert load(path, uid=12345).files == (path,)


def _fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def _link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.mkdir(mode=0o700)


@pytest.mark.promise("c43")
@pytest.mark.parametrize("make", [_fifo, _link, _folder])
def test_conf_d_takes_plain_files_only(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = write(tmp_path)
    (tmp_path / "conf.d").mkdir(mode=0o700)
    make(tmp_path / "conf.d" / "a.toml")
    (fault,) = faults_of(path)
    assert fault.startswith(f"{tmp_path}/conf.d/a.toml: ")


@pytest.mark.promise("c43")
def test_a_flood_of_parts_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "conf.d").mkdir(mode=0o700)
    for number in range(201):
        (tmp_path / "conf.d" / f"{number}.toml").touch(mode=0o600)
    assert faults_of(path) == [f"{tmp_path}/conf.d: holds more than 200 files"]


@pytest.mark.promise("c42")
@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe",
        b"\xef\xbb\xbf[server]\n",
        b"a = " + b"[" * 100_000,
        b".".join([b"a"] * 2000) + b" = 1",
        b"a = " + b"9" * 5000,
        b"a = 0x" + b"f" * 5000,
        b"a = 1\x00",
        b"[server",
        b"a = [" + b"{}," * 1000,
    ],
    ids=["latin", "bom", "deep", "dotted", "digits", "hex", "nul", "partial", "cut"],
)
def test_hostile_bytes_are_faults_and_nothing_else(tmp_path: Path, text: bytes) -> None:
    path = write(tmp_path)
    path.write_bytes(text)
    assert faults_of(path)


SUDO = MINIMAL.replace('"direct"', '"sudo"')


@pytest.mark.parametrize(
    ("text", "key", "why"),
    [
        (MINIMAL + '[audit]\npath = "log/audit.jsonl"', "audit.append_only", "needs runner `sudo`"),
        (SUDO + "[audit]", "audit.path", "lies with the store"),
        (SUDO + '[audit]\npath = "state/other.log"', "audit.path", "lies with the store"),
        (SUDO + '[audit]\npath = "log/audit"', "audit.path", "has to end as in"),
        (SUDO + '[audit]\npath = "log/audit.2026.jsonl"', "audit.path", "has to end as in"),
    ],
)
def test_a_log_that_root_could_not_keep_is_named(
    tmp_path: Path, text: str, key: str, why: str
) -> None:
    faults = faults_of(write(tmp_path, f"{text}\nappend_only = true\n"))
    assert any(fault.startswith(key) and why in fault for fault in faults), faults


def test_a_log_that_root_keeps_is_taken(tmp_path: Path) -> None:
    text = f'{SUDO}[audit]\npath = "log/audit.jsonl"\nappend_only = true\n'
    assert load(write(tmp_path, text)).audit.append_only


def test_a_fault_names_the_entry_that_it_is_in(tmp_path: Path) -> None:
    """Nobody counts rules: `rules[1]` alone does not say which."""
    text = '[[rules]]\nname = "a"\noperations = ["git.*"]\nverdict = "allow"\n'
    text += text.replace('"a"', '"reset \\"hard\\" é"').replace('"allow"', '"alow"')
    (fault,) = faults_in(tmp_path, text)
    assert fault.startswith("rules[1].verdict: must be ")
    assert fault.endswith('(rule "reset \\"hard\\" é")')
    (unnamed,) = faults_in(tmp_path, text.replace('name = "a"', "name = 7").replace("alow", "deny"))
    assert unnamed.startswith("rules[0].name: ")
    assert "(" not in unnamed
