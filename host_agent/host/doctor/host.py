"""What the host gives the agent: wrappers through sudo, tools, root's lists, the service."""

import os
import pwd
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from host_agent.config import Config, RunnerKind
from host_agent.errors import AdapterUnavailableError, ConfigurationError
from host_agent.execution.runner import is_sudo_refusal
from host_agent.host.doctor.values import Check, ok, problem, warning
from host_agent.host.install import layout
from host_agent.host.install.root_list import RENDER, root_list_state
from host_agent.host.install.values import Tools
from host_agent.identity.files import read_plain
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Output
from host_agent.sudoers.host import LiveHost
from host_agent.sudoers.render import RenderedLine, grants
from host_agent.sudoers.render import render as sudoers_fragment

REFUSED_ARGUMENT = "-"
"""No wrapper takes it: its answer proves sudo and the wrapper, and nothing else happens."""

_REFUSED, _TOOL_MISSING = 64, 69
_INSTALL = "install it: host-agent install"
_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)+[^\s,)]*|(?<=systemd )[0-9]+")


# -- wrappers -------------------------------------------------------------------------------------


def wrapper_checks(config: Config, user: str, tools: Tools) -> Iterator[Check]:
    """Yield for every wrapper and user what happens when the agent starts it."""
    try:
        needed = grants(config, CATALOGUE)
    except ConfigurationError as error:
        for fault in error.faults:
            yield problem("wrappers", f"{fault}.", "change it in the configuration")
        return
    if config.execution.runner is RunnerKind.DIRECT:
        for path in sorted({grant.path for grant in needed}):
            yield _direct(Path(path))
        return
    prefix = _prefix(user)
    if prefix is None:
        remedy = f"run the doctor as root or as {user}"
        yield warning("wrappers", f"Only root and {user} can try them through sudo.", remedy)
        return
    foreign = {path: _foreign(path) for path in sorted({grant.path for grant in needed})}
    for path, why in foreign.items():
        if why is not None:
            sentence = f"{why}: it is not started, because sudo would run it for them."
            remedy = f"see how it came there, take it away, then {_INSTALL}"
            yield problem(f"wrapper {Path(path).name}", sentence, remedy)
    for grant in needed:
        if foreign[grant.path] is None:
            yield _wrapper(grant, prefix, tools)


def _foreign(path: str) -> str | None:
    """Return why a wrapper is not surely root's own, a sentence without its end; None if it is."""
    try:
        mode = Path(path).lstat().st_mode
    except OSError:
        return None  # sudo itself says that it is not there
    if not stat.S_ISREG(mode):
        return f"{path} is {'a symbolic link' if stat.S_ISLNK(mode) else 'no plain file'}"
    return LiveHost().write_fault(path)


def _direct(path: Path) -> Check:
    name = f"wrapper {path.name}"
    if os.access(path, os.X_OK) and path.is_file():
        return ok(name, "It is there; with runner direct it runs as the agent's own user.")
    return problem(name, f"{path} cannot be run.", "put the shipped wrapper there")


def _prefix(user: str) -> tuple[str, ...] | None:
    """Return what comes before `sudo -n ...` so that it runs as the agent's user."""
    if os.geteuid() == 0:
        return ("runuser", "-u", user, "--")
    return () if _own_name() == user else None


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def _wrapper(grant: RenderedLine, prefix: tuple[str, ...], tools: Tools) -> Check:
    wrapper = Path(grant.path).name
    name = f"wrapper {wrapper} as {grant.run_as}"
    asked = ("-n", "-u", grant.run_as, "--", grant.path, REFUSED_ARGUMENT)
    try:
        if prefix:
            output = tools(prefix[0], *prefix[1:], "/usr/bin/sudo", *asked)
        else:
            output = tools("sudo", *asked)
    except AdapterUnavailableError as error:
        return problem(name, error.detail, "install it: apt-get install sudo")
    return _judged(name, output)


def _judged(name: str, output: Output) -> Check:
    said = _first_line(output)
    if output.timed_out:
        return problem(name, "It did not answer in time.", "look at the journal of sudo")
    if is_sudo_refusal(output):
        remedy = "compare sudoers with `host-agent sudoers render`, then `host-agent install`"
        return problem(name, f"sudo refuses it: {said}.", remedy)
    if output.exit_code == _REFUSED:
        return ok(name, "sudo starts it, and it refuses what it does not know.")
    if output.exit_code == _TOOL_MISSING:
        return problem(name, f"sudo starts it, and it says: {said}.", "install that tool")
    sentence = f"It answers {output.exit_code} to what it should refuse with 64: {said}."
    return problem(name, sentence, "put the shipped wrapper there: host-agent install")


def _first_line(output: Output) -> str:
    return (output.stderr or output.stdout).strip().partition("\n")[0].rstrip(".")


def shipped_check(config: Config, shipped: Mapping[str, bytes]) -> Check:
    """Return whether the installed wrappers are those that came with this version."""
    name, folder = "wrapper files", config.execution.wrapper_dir
    other = [wrapper for wrapper, content in shipped.items() if _read(folder / wrapper) != content]
    if not other:
        return ok(name, f"All {len(shipped)} in {folder} are those of this version.")
    sentence = f"Not those of this version in {folder}: {', '.join(sorted(other))}."
    return warning(name, sentence, f"{_INSTALL}; it says what an administrator changed")


def _read(path: Path) -> bytes | None:
    try:
        return read_plain(path)
    except ValueError:
        return None


# -- tools ----------------------------------------------------------------------------------------


def tool_checks(config: Config, tools: Tools) -> Iterator[Check]:
    """Yield whether the tool of each configured adapter is there, and its version."""
    for adapter in CATALOGUE.adapters:
        tool = adapter.tool
        if tool is None or config.section(adapter.section) is None:
            continue
        name = f"tool {tool.name}"
        try:
            output = tools(tool.name, *tool.version)
        except AdapterUnavailableError as error:
            remedy = f"install it, or take [{adapter.name}] out of the configuration"
            yield problem(name, error.detail, remedy)
            continue
        version = _VERSION.search(output.stdout)
        told = f"Its version is {version[0]}." if version else "It is there; it tells no version."
        yield ok(name, told)


# -- root's own files -----------------------------------------------------------------------------


def list_checks(config: Config, expected: Mapping[str, bytes]) -> Iterator[Check]:
    """Yield whether root's lists are in place, root's alone, and what the configuration means.

    `expected` has their contents by path.
    """
    if config.execution.runner is RunnerKind.DIRECT:
        return
    for path, content in expected.items():
        yield _listed(Path(path), content)


def _listed(path: Path, content: bytes) -> Check:
    name = f"root's list {path.name}"
    try:
        status = path.lstat()
        found = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        sentence = f"{path} cannot be read ({error.strerror}): without it the wrappers refuse."
        return problem(name, sentence, _INSTALL)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
        sentence = f"{path} is not a plain file that only root can write."
        return problem(name, sentence, _INSTALL)
    if found != content:
        sentence = f"{path} is not what the configuration means."
        return problem(name, sentence, f"{_INSTALL}; it says what an administrator changed")
    return ok(name, f"{path} is root's alone and says what the configuration means.")


def root_list_check(config: Config) -> Check:
    """Return whether root's list of what is allowed is there and says what the policy says."""
    name, found = "root's list allowed", root_list_state(config)
    sentence = found.sentence()
    sentence = f"{sentence[:1].upper()}{sentence[1:]}."
    if found.is_good:
        return ok(name, sentence)
    return problem(name, sentence, f"look at it and let root go by it: {RENDER}")


def sudoers_check(config: Config, user: str) -> Iterator[Check]:
    """Yield whether the sudoers fragment is the one that the configuration needs."""
    name, path = "sudoers", Path(layout.SUDOERS)
    if config.execution.runner is RunnerKind.DIRECT:
        return
    try:
        wanted = sudoers_fragment(grants(config, CATALOGUE), user)
        found = path.read_text(encoding="utf-8")
    except PermissionError:
        yield warning(name, f"{path} can be read by root only.", "run the doctor as root")
        return
    except (ConfigurationError, OSError, ValueError):
        yield problem(name, f"{path} is not there, or cannot be read.", _INSTALL)
        return
    if found == wanted:
        yield ok(name, f"{path} grants what the configured operations need, and nothing else.")
        return
    sentence = f"{path} is not what `host-agent sudoers render` says."
    yield warning(name, sentence, f"{_INSTALL}; then `host-agent sudoers check`")


def permission_checks(faults: Sequence[str]) -> Iterator[Check]:
    """Yield every path with an owner or mode that the agent would not start with.

    `faults` is what `check_permissions` found.
    """
    for fault in faults:
        yield problem("permissions", f"{fault}.", "give it the owner and mode that it names")
    if not faults:
        yield ok(
            "permissions", "Keys, state, configuration and wrappers belong to whom they should."
        )


# -- the service ----------------------------------------------------------------------------------


def service_check(tools: Tools) -> Iterator[Check]:
    """Yield whether systemd runs the service; nothing where there is no systemd or no unit."""
    units = (layout.UNIT, layout.PACKAGED[layout.UNIT])
    if not Path("/run/systemd/system").is_dir() or not any(map(os.path.exists, units)):
        return
    name = "service"
    output = tools("systemctl", "show", "--property=ActiveState,UnitFileState", layout.UNIT_NAME)
    facts = dict(line.partition("=")[::2] for line in output.stdout.splitlines())
    active, enabled = facts.get("ActiveState", "unknown"), facts.get("UnitFileState", "unknown")
    sentence = f"{layout.UNIT_NAME} is {active} and {enabled}."
    if active != "active":
        yield problem(name, sentence, f"start it: systemctl enable --now {layout.UNIT_NAME}")
    elif enabled != "enabled":
        yield warning(name, sentence, f"start it at boot: systemctl enable {layout.UNIT_NAME}")
    else:
        yield ok(name, sentence)
