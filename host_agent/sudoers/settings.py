"""The judgement of `Defaults`: which settings make every grant wider, and for whom they hold.

Later lines override earlier ones, as in sudo; settings for other users, hosts or commands are
passed over. An option that is in no table here is a finding of low severity: it is not known.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from host_agent.sudoers.host import Host, Subject
from host_agent.sudoers.known import is_dangerous_variable, is_harmless_variable
from host_agent.sudoers.matching import decide, is_for_host, is_for_subject, run_as
from host_agent.sudoers.naming import Match
from host_agent.sudoers.parse import ListMember, Setting, UserSpec
from host_agent.sudoers.values import Origin, Severity, SudoersFinding, words

_LISTS = frozenset({"env_keep", "env_check", "env_delete"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultsQuestion:
    """For whom settings are judged: a user on a host, with the entries that sudo grants it."""

    subject: Subject
    host: Host
    grants: Sequence[UserSpec]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Risk:
    rule: str
    severity: Severity
    reason: str
    remedy: str


_FLAGS: Mapping[tuple[str, bool], _Risk] = {
    ("authenticate", False): _Risk(
        rule="no-authentication",
        severity=Severity.HIGH,
        reason="`!authenticate` asks for no password, for every command that is granted",
        remedy="Remove it; put NOPASSWD on the single entries that need it.",
    ),
    ("env_reset", False): _Risk(
        rule="environment-kept",
        severity=Severity.CRITICAL,
        reason="`!env_reset` hands the caller's whole environment to programs of root",
        remedy="Remove it: env_reset is sudo's default.",
    ),
    ("setenv", True): _Risk(
        rule="setenv",
        severity=Severity.HIGH,
        reason="`setenv` lets the caller set LD_PRELOAD, PATH and the like for programs of root",
        remedy="Remove it.",
    ),
    ("sudoedit_follow", True): _Risk(
        rule="sudoedit-follow",
        severity=Severity.HIGH,
        reason="`sudoedit_follow` writes through symbolic links",
        remedy="Remove it.",
    ),
    ("sudoedit_checkdir", False): _Risk(
        rule="sudoedit-follow",
        severity=Severity.MEDIUM,
        reason="`!sudoedit_checkdir` edits files in directories that the caller can write",
        remedy="Remove it.",
    ),
    ("runas_allow_unknown_id", True): _Risk(
        rule="runas-id",
        severity=Severity.MEDIUM,
        reason="`runas_allow_unknown_id` lets commands run as ids that are no user's",
        remedy="Remove it.",
    ),
    ("use_pty", False): _Risk(
        rule="no-pty",
        severity=Severity.LOW,
        reason="`!use_pty` leaves a command on the caller's terminal, where it can type",
        remedy="Remove it.",
    ),
    ("pam_session", False): _Risk(
        rule="no-session",
        severity=Severity.LOW,
        reason="`!pam_session` opens no session: limits that PAM sets do not hold",
        remedy="Remove it.",
    ),
    ("pam_acct_mgmt", False): _Risk(
        rule="no-account-check",
        severity=Severity.LOW,
        reason="`!pam_acct_mgmt` does not ask whether the account may be used",
        remedy="Remove it.",
    ),
    ("log_allowed", False): _Risk(
        rule="not-logged",
        severity=Severity.MEDIUM,
        reason="`!log_allowed` writes nothing down of what ran",
        remedy="Remove it.",
    ),
    ("syslog", False): _Risk(
        rule="not-logged",
        severity=Severity.MEDIUM,
        reason="`!syslog` keeps what ran out of the system log",
        remedy="Remove it.",
    ),
    ("secure_path", False): _Risk(
        rule="path-kept",
        severity=Severity.MEDIUM,
        reason="`!secure_path` searches programs by the caller's PATH",
        remedy="Set secure_path to directories of root.",
    ),
    ("ignore_dot", False): _Risk(
        rule="path-kept",
        severity=Severity.LOW,
        reason="`!ignore_dot` searches programs in the current directory",
        remedy="Remove it.",
    ),
    ("fast_glob", True): _Risk(
        rule="fast-glob",
        severity=Severity.LOW,
        reason="`fast_glob` matches names without looking at files: relative paths get through",
        remedy="Remove it, and name paths without wildcards.",
    ),
    ("visiblepw", True): _Risk(
        rule="visible-password",
        severity=Severity.LOW,
        reason="`visiblepw` takes passwords where they are shown",
        remedy="Remove it.",
    ),
    ("tty_tickets", False): _Risk(
        rule="shared-ticket",
        severity=Severity.LOW,
        reason="`!tty_tickets` lets every process of the user use a password given once",
        remedy="Remove it.",
    ),
    ("closefrom_override", True): _Risk(
        rule="descriptors-kept",
        severity=Severity.LOW,
        reason="`closefrom_override` hands open files of the caller to programs of root",
        remedy="Remove it.",
    ),
}

_HARMLESS_TRUE = words("""
    authenticate env_reset use_pty pam_session pam_acct_mgmt pam_setcred pam_ruser pam_rhost
    log_allowed log_denied log_exit_status log_host log_year log_input log_output log_stdin
    log_stdout log_stderr log_ttyin log_ttyout log_subcmds log_passwords log_server_verify
    log_server_keepalive tty_tickets ignore_dot sudoedit_checkdir requiretty noexec intercept
    always_set_home set_home selinux runas_check_shell intercept_verify use_netgroups
    """)
_HARMLESS_FALSE = words("""
    setenv sudoedit_follow runas_allow_unknown_id visiblepw fast_glob closefrom_override
    env_editor insults requiretty noexec intercept intercept_allow_setid lecture log_input
    log_output log_stdin log_stdout log_stderr log_ttyin log_ttyout log_subcmds log_exit_status
    log_year log_host root_sudo rootpw runaspw targetpw set_home always_set_home preserve_groups
    stay_setuid shell_noargs umask_override user_command_timeouts exempt_group group_plugin
    runchroot runcwd env_file restricted_env_file lecture_file logfile mailto mailerpath
    env_delete
    """)
_HARMLESS = words("""
    admin_flag badpass_message case_insensitive_group case_insensitive_user command_timeout
    compress_io editor env_editor fqdn insults iolog_dir iolog_file iolog_flush iolog_group
    iolog_mode iolog_user ignore_audit_errors ignore_iolog_errors ignore_local_sudoers
    ignore_logfile_errors ignore_unknown_defaults intercept_type lecture lecture_status_dir
    logfile log_format loglinelen log_servers log_server_cabundle log_server_peer_cert
    log_server_peer_key log_server_timeout long_otp_prompt mail_all_cmnds mail_always
    mail_badpass mail_no_host mail_no_perms mail_no_user mailfrom mailsub mailto
    match_group_by_gid maxseq netgroup_tuple passprompt passprompt_override passprompt_regex
    passwd_timeout passwd_tries path_info pwfeedback preserve_groups rlimit_as rlimit_core
    rlimit_cpu rlimit_data rlimit_fsize rlimit_locks rlimit_memlock rlimit_nofile rlimit_nproc
    rlimit_rss rlimit_stack root_sudo rootpw runaspw targetpw runas_default set_logname set_utmp
    utmp_runas shell_noargs stay_setuid sudoers_locale syslog syslog_badpri syslog_goodpri
    syslog_maxlen syslog_pid timestampowner timestampdir umask umask_override use_loginclass
    user_command_timeouts verifypw listpw role type
    """)
_FILES = frozenset({"env_file", "restricted_env_file", "lecture_file", "mailerpath", "noexec_file"})


def judge_settings(
    settings: Sequence[Setting], question: DefaultsQuestion
) -> Iterator[SudoersFinding]:
    """Yield what `settings` widen for the user of `question`."""
    applying = [setting for setting in settings if _applies(setting, question)]
    scopes: dict[tuple[str, tuple[ListMember, ...]], list[Setting]] = {}
    for setting in applying:
        # What holds for certain commands or run-as users is judged by itself.
        own = (setting.scope, setting.binding) if setting.scope in ("!", ">") else ("", ())
        scopes.setdefault(own, []).append(setting)
    for scope in scopes.values():
        state = _EffectiveOptions()
        for setting in scope:
            state.take(setting)
        yield from state.findings(question)


def _applies(setting: Setting, question: DefaultsQuestion) -> bool:
    match setting.scope:
        case ":":
            return is_for_subject(setting.binding, question.subject)
        case "@":
            return is_for_host(setting.binding, question.host)
        case ">":
            return any(_runs_as(setting, grant, question.subject) for grant in question.grants)
        case "!":
            return any(_may_run(setting, grant, question.host) for grant in question.grants)
        case _:
            return True


def _runs_as(setting: Setting, grant: UserSpec, subject: Subject) -> bool:
    whom = run_as(grant, subject)
    if whom.is_anybody or whom.has_odd_id:
        return True
    names = {*whom.names, *(("root",) if whom.may_be_root else ())}

    def is_named(member: ListMember) -> Match:
        if member.kind != "username":
            return Match.MAYBE
        if member.value == "ALL":
            return Match.YES
        found = {subject.naming.user(member.value, name) for name in names}
        # `(Root)` is root, and also the account of that name where there is one.
        return (
            Match.YES if found == {Match.YES} else Match.MAYBE if found - {Match.NO} else Match.NO
        )

    return decide(setting.binding, is_named) is not Match.NO


def _may_run(setting: Setting, grant: UserSpec, host: Host) -> bool:
    """Return whether a command that `setting` is for may be among those of `grant`."""
    bound = [member.value.partition(" ")[0] for member in setting.binding if not member.negated]
    given = [command.path for command in grant.commands if not command.negated]
    if any(member.negated for member in setting.binding) and not bound:
        return bool(given)
    return any(_may_be_same(one, other, host) for one in bound for other in given)


def _may_be_same(one: str, other: str, host: Host) -> bool:
    """Compare as sudo's match_command.c: by base name, device and inode; in doubt they are one."""
    if one == other or "ALL" in (one, other):
        return True
    if one.rpartition("/")[2] == other.rpartition("/")[2] and host.may_be_same(one, other):
        return True
    return any(
        text.endswith("/") or text.startswith("^") or any(sign in text for sign in "*?[")
        for text in (one, other)
    )


class _EffectiveOptions:
    """The options as they are after every line that applies."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[object, Origin]] = {}
        self._lists: dict[str, dict[str, Origin]] = {name: {} for name in _LISTS}

    def take(self, setting: Setting) -> None:
        if setting.name not in _LISTS:
            self._values[setting.name] = (setting.value, setting.origin)
            return
        listed = self._lists[setting.name]
        if setting.value is False or setting.operation == "list_assign":
            listed.clear()
        if not isinstance(setting.value, list):
            if setting.value is False and setting.name == "env_delete":
                listed["!"] = setting.origin
            return
        for name in map(str, setting.value):
            if setting.operation == "list_remove":
                listed.pop(name, None)
            else:
                listed[name] = setting.origin

    def findings(self, question: DefaultsQuestion) -> Iterator[SudoersFinding]:
        """Yield what is wider than it should be."""
        name = question.subject.name
        for option, (value, origin) in self._values.items():
            risk = _risk(option, value, question)
            if risk is not None:
                yield _finding(origin, risk, name)
        yield from self._of_monitor(name)
        for option in ("env_keep", "env_check"):
            for variable, origin in self._lists[option].items():
                risk = _variable_risk(option, variable)
                if risk is not None:
                    yield _finding(origin, risk, name)

    def _of_monitor(self, name: str) -> Iterator[SudoersFinding]:
        pty, session = self._values.get("use_pty"), self._values.get("pam_session")
        if pty is None or session is None or pty[0] is not False or session[0] is not False:
            return
        risk = _Risk(
            rule="no-monitor",
            severity=Severity.MEDIUM,
            reason="`!use_pty` with `!pam_session` makes sudo become the command, not watch"
            " it: nobody can end it at its deadline",
            remedy="Remove both.",
        )
        yield _finding(max(pty[1], session[1]), risk, name)


def _finding(origin: Origin, risk: _Risk, name: str) -> SudoersFinding:
    return SudoersFinding(
        origin=origin,
        rule=risk.rule,
        severity=risk.severity,
        reason=f"For {name}: {risk.reason}.",
        remedy=risk.remedy,
    )


def _risk(option: str, value: object, question: DefaultsQuestion) -> _Risk | None:
    if isinstance(value, bool) and (option, value) in _FLAGS:
        return _FLAGS[option, value]
    special = _special(option, value, question)
    if special is not None:
        return special
    is_known = (
        option in _HARMLESS
        or option in _SPECIAL
        or (value is True and option in _HARMLESS_TRUE)
        or (value is False and option in _HARMLESS_FALSE)
    )
    if is_known:
        return None
    return _Risk(
        rule="setting-not-known",
        severity=Severity.LOW,
        reason=f"nothing is known of the setting `{option}`",
        remedy="See sudoers(5), and remove it where it is not needed.",
    )


_SPECIAL = _FILES | {
    *("secure_path", "timestamp_timeout", "timestamp_type", "exempt_group", "runchroot", "runcwd"),
    *("group_plugin", "pam_service", "pam_login_service", "pam_askpass_service", "closefrom"),
}


def _special(option: str, value: object, question: DefaultsQuestion) -> _Risk | None:
    if value is False:
        return None
    text = str(value)
    if option == "secure_path":
        return _path_risk(text, question.host)
    if option in _FILES:
        fault = question.host.write_fault(text) if text.startswith("/") else f"{text} is no path"
        return None if fault is None else _writable(option, fault)
    subject = question.subject
    if option == "exempt_group" and subject.naming.may_be_group(text, subject.groups):
        return _Risk(
            rule="exempt-group",
            severity=Severity.HIGH,
            reason=f"`exempt_group={text}` takes its members out of passwords and secure_path",
            remedy="Remove it.",
        )
    return _SIMPLE.get((option, text)) or _always(option, text)


_SIMPLE: Mapping[tuple[str, str], _Risk] = {
    ("timestamp_type", "global"): _Risk(
        rule="shared-ticket",
        severity=Severity.LOW,
        reason="`timestamp_type=global` lets every process of the user use a password given once",
        remedy="Remove it.",
    ),
    ("runcwd", "*"): _Risk(
        rule="any-directory",
        severity=Severity.MEDIUM,
        reason="`runcwd=*` lets the caller choose the directory that commands run in",
        remedy="Remove it.",
    ),
}


def _always(option: str, text: str) -> _Risk | None:
    if option == "timestamp_timeout" and text.startswith("-"):
        return _Risk(
            rule="shared-ticket",
            severity=Severity.MEDIUM,
            reason="a negative `timestamp_timeout` never asks for the password again",
            remedy="Remove it.",
        )
    if option == "runchroot":
        return _Risk(
            rule="chroot",
            severity=Severity.HIGH,
            reason=f"`runchroot={text}` runs commands below another root",
            remedy="Remove it.",
        )
    if option in ("group_plugin", "pam_service", "pam_login_service", "pam_askpass_service"):
        return _Risk(
            rule="plugin",
            severity=Severity.MEDIUM,
            reason=f"`{option}={text}` leaves who may do what to what is not looked at here",
            remedy="Remove it, or look at what it says.",
        )
    return None


def _path_risk(path: str, host: Host) -> _Risk | None:
    for directory in path.split(":"):
        fault = (
            host.write_fault(directory)
            if directory.startswith("/")
            else f"{directory or 'an empty part'} is relative"
        )
        if fault is not None:
            return _writable("secure_path", fault)
    return None


def _writable(option: str, fault: str) -> _Risk:
    return _Risk(
        rule="writable-path",
        severity=Severity.HIGH,
        reason=f"what `{option}` names can be replaced: {fault}",
        remedy="Name what belongs to root and is writable by nobody else.",
    )


def _variable_risk(option: str, variable: str) -> _Risk | None:
    if is_harmless_variable(variable):
        return None
    if is_dangerous_variable(variable):
        is_all = variable.startswith("*")
        return _Risk(
            rule=option.replace("_", "-"),
            severity=Severity.CRITICAL if is_all else Severity.HIGH,
            reason=f"`{option}` lets `{variable}` of the caller through, which changes what"
            " programs of root load, run or write",
            remedy="Remove the variable.",
        )
    return _Risk(
        rule="variable-not-known",
        severity=Severity.LOW,
        reason=f"`{option}` lets `{variable}` of the caller through, of which nothing is known",
        remedy="Remove the variable where it is not needed.",
    )
