"""Settings of hosts get the hook and become what they were; nothing of others is lost."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from host_agent.errors import ConfigurationError, UsageError
from host_agent.hooks.hook import mark_path
from host_agent.integration import command, files, json_text
from host_agent.integration.files import FileEdit
from host_agent.integration.hosts import HOSTS, claude_code, codex, host_of
from host_agent.integration.hosts.host import AgentHost
from host_agent.integration.integrate import (
    HookReadiness,
    carry_out,
    plan_put,
    plan_take,
    readiness,
    record_path,
)

HOOKS_OF_OTHERS = (
    '{"hooks":{"PreToolUse":[{"matcher":"Edit","hooks":[{"type":"command","command":"x"}]}]}}'
)
STATES: dict[str, dict[str, list[str | None]]] = {
    "claude-code": {
        "settings.json": [
            None,
            "{}",
            HOOKS_OF_OTHERS,
            '{\n    "model": "opus",\n    "permissions": {"allow": ["Bash(ls:*)"]}\n}\n',
            '// comment\n{\n  "env": {"A": "\\u00e9"}, // é\n  "hooks": {},\n}\n',
        ],
        "../.claude.json": [None, '{"numStartups":3,"mcpServers":{"x":{"command":"y"}}}'],
    },
    "codex": {
        "hooks.json": [None, HOOKS_OF_OTHERS, '{\n  "hooks": {\n    "Stop": []\n  }\n}\n'],
        "config.toml": [
            None,
            "",
            'model = "o"\n\n[features]\nhooks = true\n',
            '# mine\r\nmodel = "o"\r\n[mcp_servers.x]\r\ncommand = "y"',
        ],
    },
    "openclaw": {
        "openclaw.json": [
            None,
            "{}",
            (
                '// mine\n{\n  gateway: { mode: "local" },\n  plugins: {\n    allow: ["voice", ],\n'
                "    entries: { voice: { enabled: true, }, },\n  },\n}\n"
            ),
            '{"plugins":{"allow":["host-agent-guard"]},"mcp":{"servers":{}}}',
        ],
    },
}
CASES = [
    pytest.param(name, dict(zip(parts, texts, strict=True)), id=f"{name}-{number}")
    for name, parts in STATES.items()
    for number, texts in enumerate(
        [
            [options[min(n, len(options) - 1)] for options in parts.values()]
            for n in range(max(map(len, parts.values())))
        ]
    )
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(claude_code, "installed_version", lambda: None)
    monkeypatch.setattr(codex, "_MANAGED", tmp_path / "requirements.toml")
    return tmp_path


def host(name: str, home: Path) -> AgentHost:
    program = home / "my bin" / "host-agent"
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    kind = HOSTS[name]
    return kind(kind.default_directory(home / "home", {}), str(program))


def laid(found: AgentHost, texts: dict[str, str | None]) -> dict[Path, bytes]:
    """Lay the files down and return all that are there."""
    for name, text in texts.items():
        path = found.directory / name
        if text is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
            path.chmod(0o640)
    return there(found)


def there(found: AgentHost) -> dict[Path, bytes]:
    root = found.directory.parent
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def put(found: AgentHost, *, has_server: bool = True) -> None:
    carry_out(plan_put(found, has_server=has_server))


def take(found: AgentHost) -> None:
    carry_out(plan_take(found))


@pytest.mark.parametrize(("name", "texts"), CASES)
def test_what_is_put_and_taken_leaves_every_byte(
    name: str, texts: dict[str, str | None], home: Path
) -> None:
    found = host(name, home)
    before = laid(found, texts)
    put(found)
    assert found.state().command is not None
    assert there(found) != before
    take(found)
    assert there(found) == before
    assert found.state().command is None
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o640 for path in before)
    assert not before or found.directory.parent.exists()
    assert not record_path(name).exists()
    if not before:
        assert not found.directory.exists()


@pytest.mark.parametrize(("name", "texts"), CASES)
def test_what_others_wrote_meanwhile_stays(
    name: str, texts: dict[str, str | None], home: Path
) -> None:
    found = host(name, home)
    laid(found, texts)
    put(found)
    path = next(iter(reversed(found.hook_files()))).path
    text = path.read_text().rstrip()
    path.write_text(f'{text.removesuffix("}").rstrip().removesuffix(",")},\n"later": [1]}}\n')
    take(found)
    left = json_text.parse(path.read_text()).value()
    assert isinstance(left, dict)
    assert left.pop("later") == [1]
    original = texts[path.name] or "{}"
    assert left == json_text.parse(original).value()


@pytest.mark.parametrize(("name", "texts"), CASES)
def test_to_put_it_twice_is_to_put_it_once(
    name: str, texts: dict[str, str | None], home: Path
) -> None:
    found = host(name, home)
    before = laid(found, texts)
    put(found)
    once = there(found)
    plan = plan_put(found, has_server=True)
    assert not plan.is_needed
    carry_out(plan)
    assert there(found) == once
    put(found, has_server=False)
    assert there(found) == once
    take(found)
    assert there(found) == before
    take(found)
    assert there(found) == before


@pytest.mark.parametrize("name", HOSTS)
def test_another_place_of_the_program_takes_the_place_of_the_old(name: str, home: Path) -> None:
    old = host(name, home)
    laid(old, {})
    put(old)
    moved = type(old)(old.directory, "/opt/host-agent")
    put(moved)
    for path, content in there(moved).items():
        assert b"my bin" not in content, path
    assert moved.state().command == moved.command()
    take(moved)
    assert there(moved) == {}


def test_the_hook_alone_brings_no_server(home: Path) -> None:
    found = host("claude-code", home)
    put(found, has_server=False)
    assert {path.name for path in there(found)} == {"settings.json"}
    put(found)
    assert {path.name for path in there(found)} == {"settings.json", ".claude.json"}


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("claude-code", "../.claude.json", '{"mcpServers": {"host-agent": {"command": "mine"}}}'),
        ("codex", "config.toml", "[mcp_servers.host-agent]\ncommand = 'mine'\n"),
        ("openclaw", "openclaw.json", '{"mcp": {"servers": {"host-agent": {"command": "mine"}}}}'),
    ],
)
def test_a_server_that_a_person_wrote_is_left(name: str, file: str, text: str, home: Path) -> None:
    found = host(name, home)
    before = laid(found, {file: text})
    put(found)
    assert "mine" in (found.directory / file).read_text()
    take(found)
    assert there(found) == before


def test_a_link_stays_a_link(home: Path) -> None:
    found = host("claude-code", home)
    real = home / "dotfiles" / "settings.json"
    real.parent.mkdir()
    real.write_text('{"a": 1}')
    found.directory.mkdir(parents=True)
    link = found.directory / "settings.json"
    link.symlink_to(real)
    put(found)
    assert link.is_symlink()
    assert "hook claude-code" in real.read_text()
    take(found)
    assert link.is_symlink()
    assert real.read_text() == '{"a": 1}'


def test_a_link_to_nothing_becomes_its_file(home: Path) -> None:
    found = host("claude-code", home)
    found.directory.mkdir(parents=True)
    link = found.directory / "settings.json"
    link.symlink_to(home / "dotfiles" / "settings.json")
    put(found, has_server=False)
    assert link.is_symlink()
    take(found)
    assert link.is_symlink()
    assert not link.exists()


def test_a_change_meanwhile_is_noticed_and_nothing_is_written(home: Path) -> None:
    found = host("claude-code", home)
    laid(found, {"settings.json": "{}", "../.claude.json": "{}"})
    plan = plan_put(found, has_server=True)
    (found.directory / "../.claude.json").write_text('{"b": 2}')
    before = there(found)
    with pytest.raises(ConfigurationError, match="changed meanwhile"):
        carry_out(plan)
    assert there(found) == before
    assert not record_path("claude-code").exists()


def test_a_file_that_came_meanwhile_is_not_written_over(home: Path) -> None:
    found = host("codex", home)
    plan = plan_put(found, has_server=False)
    laid(found, {"hooks.json": '{"mine": 1}'})
    before = there(found)
    with pytest.raises(ConfigurationError, match="changed meanwhile"):
        carry_out(plan)
    assert there(found) == before


def test_a_file_that_came_at_the_last_moment_is_not_written_over(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "a" / "x.json"
    edit = FileEdit(path=path, before=None, after=b"{}")

    def come(_edit: FileEdit) -> None:
        path.write_text("mine")

    monkeypatch.setattr(files, "_held", come)
    with pytest.raises(ConfigurationError):
        files.apply([edit])
    assert path.read_text() == "mine"
    assert [one.name for one in path.parent.iterdir()] == ["x.json"]


def test_what_cannot_be_written_leaves_all_as_it_was(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = host("openclaw", home)
    before = laid(found, {"openclaw.json": "{}"})
    plan = plan_put(found, has_server=True)
    real = files._like

    def fail(descriptor: int, place: Path) -> None:
        if place.name == "openclaw.json":
            raise OSError(28, "No space left on device", str(place))
        real(descriptor, place)

    monkeypatch.setattr(files, "_like", fail)
    with pytest.raises(ConfigurationError, match="No space left"):
        carry_out(plan)
    assert there(found) == before
    assert not (found.directory / "extensions").exists()


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("claude-code", "settings.json", b"{"),
        ("claude-code", "settings.json", b"[]"),
        ("claude-code", "settings.json", b'{"hooks": []}'),
        ("claude-code", "settings.json", b'{"hooks": {"PreToolUse": "x"}}'),
        ("claude-code", "settings.json", b'{"hooks": {}, "hooks": {}}'),
        ("claude-code", "settings.json", b"\xff"),
        ("claude-code", "settings.json", b""),
        ("codex", "config.toml", b"= 1"),
        ("codex", "hooks.json", b'{"hooks": 1}'),
        ("openclaw", "openclaw.json", b"{plugins: []}"),
        ("openclaw", "openclaw.json", b'{plugins: {entries: "x"}}'),
    ],
)
def test_a_file_that_cannot_be_edited_is_left(
    name: str, file: str, content: bytes, home: Path
) -> None:
    found = host(name, home)
    found.directory.mkdir(parents=True)
    (found.directory / file).write_bytes(content)
    before = there(found)
    with pytest.raises(ConfigurationError):
        put(found)
    assert there(found) == before


def test_a_directory_in_the_place_of_a_file_is_left(home: Path) -> None:
    found = host("codex", home)
    (found.directory / "hooks.json").mkdir(parents=True)
    with pytest.raises(ConfigurationError):
        put(found)


def test_without_its_record_the_hook_is_found_by_its_command(home: Path) -> None:
    found = host("codex", home)
    laid(found, {"hooks.json": HOOKS_OF_OTHERS})
    put(found)
    record_path("codex").unlink()
    take(found)
    assert json.loads((found.directory / "hooks.json").read_text()) == json.loads(HOOKS_OF_OTHERS)


def test_without_its_record_the_plugin_goes_as_it_came(home: Path) -> None:
    found = host("openclaw", home)
    put(found)
    record_path("openclaw").unlink()
    take(found)
    assert {path.name for path in there(found)} == {"openclaw.json"}


def test_a_plugin_that_was_changed_is_left(home: Path) -> None:
    found = host("openclaw", home)
    put(found)
    module = found.directory / "extensions" / "host-agent-guard" / "index.js"
    module.write_text("mine")
    take(found)
    assert list(there(found).values()) == [b"mine"]


def test_a_record_that_cannot_be_read_is_a_fault(home: Path) -> None:
    found = host("codex", home)
    record_path("codex").parent.mkdir(parents=True)
    record_path("codex").write_text("{}")
    with pytest.raises(ConfigurationError, match="not a record"):
        put(found)


def test_the_record_is_for_its_person_alone(home: Path) -> None:
    found = host("claude-code", home)
    laid(found, {"settings.json": '{"env": {"TOKEN": "s"}}'})
    put(found)
    assert stat.S_IMODE(record_path("claude-code").stat().st_mode) == 0o600
    assert stat.S_IMODE(record_path("claude-code").parent.stat().st_mode) == 0o700


def called(name: str) -> None:
    os.utime(mark_path(name))


@pytest.mark.parametrize("name", ["claude-code", "openclaw"])
def test_ready_is_what_the_host_has_called(name: str, home: Path) -> None:
    found = host(name, home)
    assert readiness(found).next_step == f"Run `host-agent integrate {name}`."
    put(found)
    assert not readiness(found).is_ready
    assert readiness(found).next_step == found.next_step
    called(name)
    assert readiness(found).is_ready
    put(found)
    assert readiness(found).is_ready
    put(type(found)(found.directory, f"{home}/my bin/../my bin/host-agent"))
    assert readiness(found).called_at is None
    take(found)
    assert not readiness(found).is_installed


def test_codex_is_ready_when_a_person_trusts_just_this_hook(home: Path) -> None:
    found = host("codex", home)
    laid(found, {"hooks.json": HOOKS_OF_OTHERS})
    put(found, has_server=False)
    called("codex")
    assert readiness(found).is_trusted is False
    assert not readiness(found).is_ready
    group = json.loads((found.directory / "hooks.json").read_text())["hooks"]["PreToolUse"][1]
    key = f"{found.directory}/hooks.json:pre_tool_use:1:0"
    configuration = found.directory / "config.toml"
    trusted = f'[hooks.state."{key}"]\ntrusted_hash = "{codex.trust_hash(group)}"\n'
    configuration.write_text(trusted)
    assert readiness(found).is_ready
    configuration.write_text(trusted.replace("sha256:", "sha256:0"))
    assert readiness(found).is_trusted is False
    configuration.write_text(f"{trusted}enabled = false\n")
    assert "turned this hook off" in readiness(found).obstacles[0]
    configuration.write_text(f"{trusted}[features]\nhooks = false\n")
    assert "turns hooks off" in readiness(found).obstacles[0]
    configuration.write_text(trusted)
    (home / "requirements.toml").write_text("allow_managed_hooks_only = true\n")
    assert "administrator's hooks only" in readiness(found).obstacles[0]
    (home / "requirements.toml").write_text("x")
    with pytest.raises(ConfigurationError):
        readiness(found)


def test_the_hash_is_the_one_that_codex_itself_has() -> None:
    # What Codex 0.171.0 answers to hooks/list for this group.
    group: json_text.Plain = {
        "matcher": "^Bash$",
        "hooks": [
            {
                "type": "command",
                "command": "sh -c '/usr/bin/timeout -k 1 6 /opt/host-agent hook codex'",
                "timeout": 10,
            }
        ],
    }
    assert (
        codex.trust_hash(group)
        == "sha256:b4e1618c609ed9dcd9916a267bef8d33211eb12498d944aec85bd92091330c35"
    )


def test_a_hook_that_nothing_ends_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    found = host("codex", home)
    put(found)
    assert "timeout" in readiness(found).obstacles[0]


@pytest.mark.parametrize(
    ("text", "obstacle"),
    [
        ("plugins: {enabled: false}", "turns all plugins off"),
        ("plugins: {deny: ['host-agent-guard']}", "plugins.deny"),
        ("plugins: {allow: ['x']}", "plugins.allow"),
        ("plugins: {entries: {}}", "does not turn the plugin"),
    ],
)
def test_what_keeps_openclaw_from_loading_it_is_told(text: str, obstacle: str, home: Path) -> None:
    found = host("openclaw", home)
    put(found)
    called("openclaw")
    (found.directory / "openclaw.json").write_text(f"{{{text}}}")
    ready = readiness(found)
    assert [one for one in ready.obstacles if obstacle in one]
    assert not ready.is_ready


def test_a_program_that_is_gone_is_told(home: Path) -> None:
    found = host("claude-code", home)
    put(found)
    called("claude-code")
    Path(found.program).unlink()
    ready = readiness(found)
    assert not ready.is_ready
    assert "cannot be run" in ready.obstacles[0]


@pytest.mark.parametrize("name", HOSTS)
def test_the_hook_of_another_installation_is_not_taken_for_this_one(name: str, home: Path) -> None:
    found = host(name, home)
    put(found)
    called(name)
    other = type(found)(found.directory, "/bin/sh")
    assert not readiness(other).is_installed
    assert not readiness(other).is_ready


def test_claude_code_with_hooks_off_or_too_old_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = host("claude-code", home)
    laid(found, {"settings.json": '{"disableAllHooks": true}'})
    put(found)
    assert "disableAllHooks" in readiness(found).obstacles[0]
    assert "onFailure" in (found.directory / "settings.json").read_text()
    monkeypatch.setattr(claude_code, "installed_version", lambda: (2, 1, 294))
    put(found)
    assert "older than 2.1.295" in readiness(found).obstacles[1]
    assert "onFailure" not in (found.directory / "settings.json").read_text()


def native(bin_directory: Path) -> None:
    target = bin_directory.parent / "share" / "claude" / "versions" / "2.1.300"
    target.parent.mkdir(parents=True)
    target.write_text("")
    target.chmod(0o755)
    (bin_directory / "claude").symlink_to(target)


def of_npm(bin_directory: Path) -> None:
    package = bin_directory.parent / "lib" / "claude-code"
    (package / "bin").mkdir(parents=True)
    (package / "package.json").write_text('{"version": "2.1.200"}')
    (package / "bin" / "claude").write_text("")
    (package / "bin" / "claude").chmod(0o755)
    (bin_directory / "claude").symlink_to(package / "bin" / "claude")


def of_another(bin_directory: Path) -> None:
    (bin_directory / "claude").write_text("")
    (bin_directory / "claude").chmod(0o755)


@pytest.mark.parametrize(
    ("install", "version"),
    [(native, (2, 1, 300)), (of_npm, (2, 1, 200)), (of_another, None), (None, None)],
)
def test_the_version_is_told_by_where_it_lies(
    install: Callable[[Path], None] | None,
    version: tuple[int, ...] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    if install is not None:
        install(directory)
    assert claude_code.installed_version() == version


def test_where_a_host_has_its_settings() -> None:
    home = Path("/h")
    places = {name: kind.default_directory(home, {}) for name, kind in HOSTS.items()}
    assert places == {
        "claude-code": Path("/h/.claude"),
        "codex": Path("/h/.codex"),
        "openclaw": Path("/h/.openclaw"),
    }
    named = {"CLAUDE_CONFIG_DIR": "/c", "CODEX_HOME": "/x", "OPENCLAW_STATE_DIR": "/o"}
    others = {str(kind.default_directory(home, named)) for kind in HOSTS.values()}
    assert others == {"/c", "/x", "/o"}
    given = HOSTS["claude-code"](Path("/c"), "/p")
    assert next(iter(given.server_files())).path == Path("/c/.claude.json")


def test_an_unknown_host_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="claude-code, codex, openclaw"):
        host_of("cursor")


def test_the_program_is_the_one_that_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "host-agent"
    own.write_text("")
    own.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(own), "integrate"])
    assert command.program() == str(own)
    monkeypatch.setattr("sys.argv", [str(tmp_path / "__main__.py")])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command.program() == str(own)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigurationError, match="search path"):
        command.program()


def test_ready_needs_all_of_it() -> None:
    nothing = HookReadiness(
        is_installed=False, is_trusted=None, called_at=None, obstacles=(), next_step=None
    )
    assert not nothing.is_ready
