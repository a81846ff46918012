"""The judgement: which entries of a policy give a user more than is known to be safe, and why.

Only what sudo would really grant to one of the audited users on this host counts: entries for other
users or hosts, expired ones, and ones that a later denial of everything takes back are passed over.
Of the rest, exactly the grants that `render` writes, and commands that do nothing, are safe.
Everything else is a finding.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from host_agent.sudoers.host import Host, Subject
from host_agent.sudoers.matching import Fit, RunasSpec, covers, fit, run_as
from host_agent.sudoers.membership import POWERS
from host_agent.sudoers.naming import naming
from host_agent.sudoers.parse import CommandSpec, SudoersPolicy, UserSpec
from host_agent.sudoers.programs import HARMLESS, ProgramKind, kind_of
from host_agent.sudoers.settings import DefaultsQuestion, judge_settings
from host_agent.sudoers.values import Severity, SudoersFinding

_GLOB = re.compile(r"(?<!\\)(?:\\\\)*[*?\[]")
_SHOWN = 160
_REMOVE = "Remove the entry. What the agent needs is what `host-agent sudoers render` prints."


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Whose rights are audited: the agent's user, the identities' users, and the own wrappers.

    `root_wrappers` and `user_wrappers` are the paths that the agent's user may run as root and as
    one of `unix_users` (None: as any single user but root).
    """

    service_user: str
    unix_users: frozenset[str] | None
    root_wrappers: frozenset[str]
    user_wrappers: frozenset[str]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the users that are audited, the agent's first."""
        others = sorted((self.unix_users or frozenset()) - {self.service_user})
        return (self.service_user, *others)


def judge(
    policy: SudoersPolicy, audience: Audience, host: Host, now: datetime
) -> Iterator[SudoersFinding]:
    """Yield what `policy` gives away to the users of `audience`; one finding may come twice."""
    names = naming(policy.settings)
    for name in audience.names:
        subject = replace(host.subject(name), naming=names)
        if subject.uid == 0 or name == "root":
            continue  # root needs no sudo
        granted = list(_granted(policy.grants, subject, host, now))
        for grant, how in granted:
            yield from _Judge(audience, subject, host, grant, how).findings()
        question = DefaultsQuestion(
            subject=subject, host=host, grants=[grant for grant, _ in granted]
        )
        yield from judge_settings(policy.settings, question)


def _granted(
    grants: Sequence[UserSpec], subject: Subject, host: Host, now: datetime
) -> Iterator[tuple[UserSpec, Fit]]:
    fitting = [(grant, how) for grant in grants if (how := fit(grant, subject, host, now))]
    for index, (grant, how) in enumerate(fitting):
        later = fitting[index + 1 :]
        is_taken_back = any(
            other_how.is_certain
            and "notbefore" not in other.options
            and covers(other, grant, subject.naming)
            for other, other_how in later
        )
        if not is_taken_back and allowed(grant):
            yield grant, how


def allowed(grant: UserSpec) -> tuple[CommandSpec, ...]:
    """Return the commands that `grant` allows; what stands before `!ALL` is taken back by it."""
    start = 0
    for index, command in enumerate(grant.commands):
        if command.negated and command.text == "ALL":
            start = index + 1
    return tuple(command for command in grant.commands[start:] if not command.negated)


class _Judge:
    """One entry of sudoers, resolved for one user."""

    def __init__(
        self, audience: Audience, subject: Subject, host: Host, grant: UserSpec, how: Fit
    ) -> None:
        self._audience = audience
        self._subject = subject
        self._host = host
        self._grant = grant
        self._how = how
        self._as: RunasSpec = run_as(grant, subject)

    def findings(self) -> Iterator[SudoersFinding]:
        if self._as.is_only_self:
            return  # running something as oneself gives nothing
        commands = allowed(self._grant)
        yield from self._of_run_as()
        if all(self._is_own(command) for command in commands):
            yield from self._of_options()
            for command in commands:
                yield from self._of_owner(command)
            return
        yield from self._of_membership()
        yield from self._of_options()
        if any(command.negated and command.text != "ALL" for command in self._grant.commands):
            yield self._finding(
                "negation",
                Severity.HIGH,
                "takes commands out with `!`: a copy, a link or another path of the program runs",
                "Name what is allowed, and nothing else.",
            )
        for command in commands:
            if self._is_own(command):
                yield from self._of_owner(command)
            else:
                yield from self._of_command(command)

    # -- our own lines ----------------------------------------------------------------------------

    def _is_own(self, command: CommandSpec) -> bool:
        """Return whether the agent's user may run this wrapper by the rendered lines."""
        if self._subject.name != self._audience.service_user or self._as.groups:
            return False
        arguments = command.arguments
        if arguments not in (None, '""') and _has_pattern(command):
            return False
        if self._as.is_anybody or self._as.has_exclusion or not self._is_plain():
            return False
        names = set(self._as.names)
        if command.path in self._audience.root_wrappers:
            return names == {"root"}
        if command.path in self._audience.user_wrappers and not self._as.may_be_root:
            users = self._audience.unix_users
            return users is None or names <= users
        return False

    def _is_plain(self) -> bool:
        members = self._grant.run_as
        return members is None or all(member.kind == "username" for member in members)

    # -- what holds for the whole entry -----------------------------------------------------------

    def _of_membership(self) -> Iterator[SudoersFinding]:
        if not self._how.is_certain:
            yield self._finding(
                "membership-unknown",
                Severity.MEDIUM,
                "is for a netgroup, a number or a plugin's group whose members cannot be seen here",
                "Name users instead, or see that this one is not among them.",
            )
        if self._how.by_exclusion:
            yield self._finding(
                "exclusion",
                Severity.HIGH,
                "is for everybody, or every host, but those named with `!`",
                "Name whom the entry is for.",
            )

    def _of_run_as(self) -> Iterator[SudoersFinding]:
        if self._as.has_exclusion:
            yield self._finding(
                "runas-negation",
                Severity.CRITICAL,
                f"lets commands run as others with some taken out by `!` ({self._run_as_text()}):"
                " a number or another name of the same user gets around that",
                "Name the one user to run as.",
            )
        elif self._as.is_anybody:
            yield self._finding(
                "runas-all",
                Severity.HIGH,
                "lets commands run as anybody, root included",
                "Name the one user to run as.",
            )
        if self._as.has_odd_id:
            yield self._finding(
                "runas-id",
                Severity.CRITICAL,
                f"names a run-as user by an id that is not one ({self._run_as_text()})",
                "Name the one user to run as.",
            )
        given = sorted(set(self._as.groups) - self._subject.groups)
        if given:
            is_bad = "ALL" in given or any(
                self._subject.naming.may_be_group(group, frozenset(POWERS)) for group in given
            )
            yield self._finding(
                "runas-group",
                Severity.HIGH if is_bad else Severity.MEDIUM,
                f"lets commands run with the group {', '.join(given)}",
                "Leave the group out.",
            )

    def _of_options(self) -> Iterator[SudoersFinding]:
        options = self._grant.options
        is_all = any(command.text == "ALL" for command in allowed(self._grant))
        if options.get("setenv") is True and not is_all:
            yield self._finding(
                "setenv",
                Severity.HIGH,
                "has SETENV: the caller sets LD_PRELOAD, PATH and the like for the command",
                "Take SETENV out.",
            )
        if "runchroot" in options:
            yield self._finding(
                "chroot",
                Severity.HIGH,
                f"lets commands run below another root ({options['runchroot']}), where the caller"
                " may have put the files",
                "Take CHROOT out.",
            )
        if options.get("runcwd") == "*":
            yield self._finding(
                "any-directory",
                Severity.MEDIUM,
                "lets the caller choose the directory that the command runs in (CWD=*)",
                "Take CWD out, or name one directory.",
            )
        if options.get("sudoedit_follow") is True:
            yield self._finding(
                "sudoedit-follow",
                Severity.HIGH,
                "has FOLLOW: sudoedit writes through symbolic links",
                "Take FOLLOW out.",
            )

    # -- one command ------------------------------------------------------------------------------

    def _of_command(self, command: CommandSpec) -> Iterator[SudoersFinding]:
        if command.text == "ALL":
            yield self._all_commands()
        elif command.path == "sudoedit":
            is_wide = command.arguments is None or _has_pattern(command)
            yield self._finding(
                "sudoedit",
                Severity.CRITICAL if is_wide else Severity.HIGH,
                "lets files of root be edited",
                "Remove the entry; change the file through a tool that checks what it writes.",
                command,
            )
        elif command.text != "list":  # seeing the rights of others gives none
            yield from self._program(command)

    def _all_commands(self) -> SudoersFinding:
        is_free = self._grant.options.get("authenticate") is False
        return self._finding(
            "nopasswd-all" if is_free else "all-commands",
            Severity.CRITICAL,
            "may run every command" + (" without a password" if is_free else ""),
            _REMOVE,
        )

    def _program(self, command: CommandSpec) -> Iterator[SudoersFinding]:
        path = command.path
        if path in self._audience.root_wrappers | self._audience.user_wrappers:
            yield self._foreign_wrapper(command)
            return
        yield from self._of_pattern(command)
        if path.endswith("/"):
            yield self._finding(
                "directory",
                Severity.HIGH,
                "allows every program of a directory, also those that are put there later",
                "Name the one program, by its whole path.",
                command,
            )
        kind = None if _GLOB.search(path) or path.startswith("^") else self._kind(path)
        if kind is not None:
            yield self._of_kind(command, kind)
        elif path not in HARMLESS:
            yield self._finding(
                "not-known",
                Severity.MEDIUM,
                "is not one of the agent's own grants, and nothing is known of it",
                "Remove the entry, or make it an operation of the agent.",
                command,
            )
        if command.arguments is None and not path.endswith("/"):
            yield self._finding(
                "any-arguments",
                Severity.LOW if path in HARMLESS else Severity.MEDIUM,
                "takes any arguments",
                'Write the arguments out, or `""` for none.',
                command,
            )
        yield from self._of_owner(command)

    def _kind(self, path: str) -> ProgramKind | None:
        return kind_of(path) or kind_of(self._host.resolved(path))

    def _of_kind(self, command: CommandSpec, kind: ProgramKind) -> SudoersFinding:
        is_bounded = command.arguments is not None and not _has_pattern(command)
        severity = kind.severity
        if is_bounded:
            milder = severity.lowered()
            severity = milder.lowered() if kind.is_bounded_by_arguments else milder
        return self._finding(kind.rule, severity, kind.reason, _REMOVE, command)

    def _of_pattern(self, command: CommandSpec) -> Iterator[SudoersFinding]:
        if command.path.startswith("^") or (command.arguments or "").startswith("^"):
            yield self._finding(
                "regular-expression",
                Severity.HIGH,
                "is a regular expression: what it lets through cannot be told",
                "Name the one program and its arguments exactly.",
                command,
            )
        elif _GLOB.search(command.text):
            is_path = _GLOB.search(command.path) is not None
            yield self._finding(
                "wildcard",
                Severity.CRITICAL if is_path else Severity.HIGH,
                "has a wildcard in its path, so it allows many programs"
                if is_path
                else "has a wildcard in its arguments, which also matches spaces and slashes, so"
                " further options and other paths",
                "Write it out; sudo-rs refuses wildcards in arguments altogether.",
                command,
            )

    def _foreign_wrapper(self, command: CommandSpec) -> SudoersFinding:
        if self._subject.name == self._audience.service_user:
            return self._finding(
                "wrapper-changed",
                Severity.HIGH,
                "is a wrapper of the agent, granted otherwise than it is rendered",
                "Replace the entry with what `host-agent sudoers render` prints.",
                command,
            )
        return self._finding(
            "past-the-agent",
            Severity.HIGH,
            "is a wrapper of the agent that another user may run, past policy and approvals",
            "Remove the entry; only the agent's user runs its wrappers.",
            command,
        )

    def _of_owner(self, command: CommandSpec) -> Iterator[SudoersFinding]:
        path = command.path
        if not path.startswith("/") or _GLOB.search(path):
            return
        fault = self._host.write_fault(path.rstrip("/") or "/")
        if fault is None:
            return
        yield self._finding(
            "writable-command",
            Severity.HIGH if command.has_digest else Severity.CRITICAL,
            f"can be replaced: {fault}",
            "Give the file and every directory above it to root, writable by nobody else.",
            command,
        )

    # -- telling ----------------------------------------------------------------------------------

    def _finding(
        self,
        rule: str,
        severity: Severity,
        what: str,
        remedy: str,
        command: CommandSpec | None = None,
    ) -> SudoersFinding:
        subject = f"{self._subject.name} as {self._run_as_text()}"
        shown = "the entry" if command is None else _shown(command.text)
        is_milder = not (self._as.may_be_root or self._as.groups)
        return SudoersFinding(
            origin=self._grant.origin,
            rule=rule,
            severity=severity.lowered() if is_milder else severity,
            reason=f"For {subject}: {shown} {what}.",
            remedy=remedy,
        )

    def _run_as_text(self) -> str:
        if self._grant.run_as is None:
            return self._subject.name if self._as.groups else "root"
        return ", ".join(
            ("!" if member.negated else "") + _name(member.kind, member.value)
            for member in self._grant.run_as
        )


def _name(kind: str, value: str) -> str:
    marks = {
        "userid": "#",
        "usergroup": "%",
        "usergid": "%#",
        "netgroup": "+",
        "nonunixgroup": "%:",
    }
    return f"{marks.get(kind, '')}{value}" or "oneself"


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _has_pattern(command: CommandSpec) -> bool:
    arguments = command.arguments or ""
    return _GLOB.search(command.text) is not None or arguments.startswith("^")
