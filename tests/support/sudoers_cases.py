"""Fragments of sudoers, risky and safe, for the agent's user `host-agent`, and a host to judge."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from host_agent.sudoers.findings import Audience
from host_agent.sudoers.host import Subject
from host_agent.sudoers.reading import (
    MissingSourceError,
    SudoersDirectory,
    SudoersFile,
    UnreadableSourceError,
)

NOW = datetime(2026, 11, 20, 22, 0, tzinfo=UTC)
WRAPPERS = "/usr/local/lib/host-agent"
DIGEST = "sha256:" + "ab" * 32

AUDIENCE = Audience(
    service_user="host-agent",
    unix_users=frozenset({"librarian"}),
    root_wrappers=frozenset({f"{WRAPPERS}/zfs-list", f"{WRAPPERS}/sudoers-read"}),
    user_wrappers=frozenset({f"{WRAPPERS}/git"}),
)


@dataclass(frozen=True, slots=True)
class FakeHost:
    """A host of which everything is known."""

    names: frozenset[str] = frozenset({"box", "box.example.org"})
    addresses: frozenset[str] = frozenset({"192.0.2.7", "10.1.2.5/24", "2001:db8::7/64"})
    users: Mapping[str, Subject] = field(
        default_factory=lambda: {
            "root": Subject(name="root", uid=0, groups=frozenset({"root"}), gids=frozenset({0})),
            "host-agent": Subject(
                name="host-agent",
                uid=990,
                groups=frozenset({"host-agent", "wrappers"}),
                gids=frozenset({990, 800}),
            ),
            "librarian": Subject(
                name="librarian",
                uid=1001,
                groups=frozenset({"librarian"}),
                gids=frozenset({1001}),
            ),
        }
    )
    links: Mapping[str, str] = field(
        default_factory=lambda: {"/opt/bin/run": "/usr/bin/bash", "/bin/true": "/usr/bin/true"}
    )
    writable: tuple[str, ...] = ("/tmp", "/home")

    def subject(self, name: str) -> Subject:
        absent = Subject(name=name, uid=None, groups=frozenset({name}))
        return self.users.get(name, absent)

    def resolved(self, path: str) -> str:
        return self.links.get(path, path)

    def may_be_same(self, one: str, other: str) -> bool:
        return self.resolved(one) == self.resolved(other)

    def write_fault(self, path: str) -> str | None:
        is_writable = any(path == top or path.startswith(f"{top}/") for top in self.writable)
        return f"{path} is writable by everybody" if is_writable else None


@dataclass(frozen=True, slots=True)
class FakeSource:
    """Files by path; None stands for one that cannot be read."""

    files: Mapping[str, str | None]
    faults: Mapping[str, str] = field(default_factory=dict)

    def file(self, path: str) -> SudoersFile:
        if path not in self.files:
            raise MissingSourceError
        text = self.files[path]
        if text is None:
            raise UnreadableSourceError("Permission denied")
        return SudoersFile(path=path, text=text, fault=self.faults.get(path))

    def directory(self, path: str) -> SudoersDirectory:
        below = f"{path}/"
        names = [name.removeprefix(below) for name in self.files if name.startswith(below)]
        if not names:
            raise MissingSourceError
        inside = tuple(name for name in names if "/" not in name)
        return SudoersDirectory(path=path, names=inside, fault=self.faults.get(path))


def _allows(command: str, run_as: str = "(root)") -> str:
    return f"host-agent ALL={run_as} NOPASSWD: {command}\n"


RISKY: Mapping[str, tuple[str, str]] = {
    "everything without a password": (_allows("ALL", "(ALL:ALL)"), "nopasswd-all"),
    "everything as root": (_allows("ALL"), "nopasswd-all"),
    "everything with a password": ("host-agent ALL=(ALL) ALL\n", "all-commands"),
    "everything by an entry for everybody": ("ALL ALL=(ALL) NOPASSWD: ALL\n", "nopasswd-all"),
    "everything by a group": ("%wrappers ALL=(ALL) ALL\n", "all-commands"),
    "everything by the number of a group": ("%#800 ALL=(ALL) ALL\n", "all-commands"),
    "everything by the user's number": ("#990 ALL=(ALL) ALL\n", "all-commands"),
    "everything on this host": ("host-agent box=(ALL) ALL\n", "all-commands"),
    "everything on hosts of a pattern": ("host-agent bo*=(ALL) ALL\n", "all-commands"),
    "everything on this network": ("host-agent 192.0.2.0/24=(ALL) ALL\n", "all-commands"),
    "everything on this address": ("host-agent 2001:db8::7=(ALL) ALL\n", "all-commands"),
    "an alias of users": ("User_Alias A = alice, host-agent\nA ALL=(root) ALL\n", "all-commands"),
    "an alias of commands": (
        "Cmnd_Alias C = /bin/sh, /bin/true\n" + _allows("C"),
        "shell",
    ),
    "an alias of run-as users": (
        "Runas_Alias R = root, bin\n" + _allows('/usr/bin/cp ""', "(R)"),
        "file-tool",
    ),
    "an alias of hosts": ("Host_Alias H = box\nhost-agent H=(root) ALL\n", "all-commands"),
    "everything but a command": (_allows("ALL, !/bin/su"), "negation"),
    "a command taken out": (_allows("/usr/bin/apt, !/usr/bin/apt install"), "negation"),
    "anybody but root": (_allows("/usr/bin/id", "(ALL, !root)"), "runas-negation"),
    "anybody but root by number": (_allows("/bin/sh", "(ALL, !#0)"), "runas-negation"),
    "anybody": (_allows('/usr/bin/id ""', "(ALL)"), "runas-all"),
    "an impossible id": (_allows('/usr/bin/id ""', "(#-1)"), "runas-id"),
    "the group disk": (_allows('/usr/bin/id ""', "(:disk)"), "runas-group"),
    "the group docker": (_allows('/usr/bin/id ""', "(root:docker)"), "runas-group"),
    "everybody but somebody": ("ALL, !alice ALL=(root) /bin/ls /root\n", "exclusion"),
    "every host but one": ("host-agent ALL, !web = (root) /bin/ls /root\n", "exclusion"),
    "a netgroup": ("+admins ALL=(root) ALL\n", "membership-unknown"),
    "a plugin's group": ('"%:domain admins" ALL=(root) ALL\n', "membership-unknown"),
    "a wildcard in arguments": (_allows("/usr/bin/systemctl restart *"), "wildcard"),
    "a wildcard in a path": (_allows("/usr/sbin/z*"), "wildcard"),
    "a class of characters": (_allows("/usr/sbin/zfs list tank[0-9]"), "wildcard"),
    "a question mark": (_allows("/usr/bin/pct start 10?"), "wildcard"),
    "a wildcard behind our wrapper": (_allows(f"{WRAPPERS}/*"), "wildcard"),
    "a regular expression as path": (_allows("^/usr/bin/(ls|id)$"), "regular-expression"),
    "a regular expression as arguments": (_allows("/bin/ls ^/srv/.*$"), "regular-expression"),
    "a directory": (_allows("/usr/sbin/"), "directory"),
    "a path without arguments": (_allows("/usr/local/bin/backup"), "any-arguments"),
    "a command of which nothing is known": (_allows('/usr/local/bin/backup ""'), "not-known"),
    "zfs": (_allows("/sbin/zfs"), "storage"),
    "zpool": (_allows("/usr/sbin/zpool"), "storage"),
    "mkfs of a kind": (_allows("/sbin/mkfs.ext4"), "storage"),
    "mount": (_allows("/bin/mount"), "storage"),
    "pct": (_allows("/usr/sbin/pct"), "virtualisation"),
    "qm": (_allows("/usr/sbin/qm"), "virtualisation"),
    "systemctl": (_allows("/usr/bin/systemctl"), "service-control"),
    "systemctl with exact arguments": (
        _allows("/usr/bin/systemctl restart nginx.service"),
        "service-control",
    ),
    "a shell": (_allows('/bin/bash ""'), "shell"),
    "busybox": (_allows("/bin/busybox"), "shell"),
    "a link to a shell": (_allows('/opt/bin/run ""'), "shell"),
    "python with a version": (_allows("/usr/bin/python3.11 /srv/job.py"), "interpreter"),
    "perl": (_allows("/usr/bin/perl"), "interpreter"),
    "awk": (_allows("/usr/bin/awk"), "interpreter"),
    "vim of a variant": (_allows("/usr/bin/vim.basic"), "editor"),
    "nano": (_allows("/bin/nano /etc/hosts"), "editor"),
    "less": (_allows("/usr/bin/less /var/log/syslog"), "pager"),
    "man": (_allows("/usr/bin/man"), "pager"),
    "apt-get": (_allows("/usr/bin/apt-get update"), "package-manager"),
    "pip": (_allows("/usr/bin/pip3"), "package-manager"),
    "make": (_allows("/usr/bin/make"), "build-tool"),
    "cp": (_allows("/bin/cp"), "file-tool"),
    "tee to a file": (_allows("/usr/bin/tee /etc/motd"), "file-tool"),
    "dd": (_allows("/bin/dd"), "file-tool"),
    "chmod": (_allows("/bin/chmod"), "file-tool"),
    "chown": (_allows("/bin/chown"), "file-tool"),
    "tar": (_allows("/bin/tar"), "file-tool"),
    "rsync": (_allows("/usr/bin/rsync"), "file-tool"),
    "find": (_allows("/usr/bin/find"), "file-tool"),
    "sed": (_allows("/bin/sed"), "file-tool"),
    "git of the host": (_allows("/usr/bin/git"), "file-tool"),
    "cat": (_allows("/bin/cat /etc/shadow"), "file-reader"),
    "journalctl": (_allows("/usr/bin/journalctl"), "file-reader"),
    "docker": (_allows("/usr/bin/docker"), "container"),
    "lxc-attach": (_allows("/usr/bin/lxc-attach"), "container"),
    "nsenter": (_allows("/usr/bin/nsenter"), "container"),
    "su": (_allows("/bin/su"), "becomes-root"),
    "env": (_allows("/usr/bin/env"), "launcher"),
    "systemd-run": (_allows("/usr/bin/systemd-run"), "launcher"),
    "usermod": (_allows("/usr/sbin/usermod"), "account-tool"),
    "visudo": (_allows("/usr/sbin/visudo"), "account-tool"),
    "curl": (_allows("/usr/bin/curl"), "network-tool"),
    "iptables": (_allows("/usr/sbin/iptables-nft"), "network-tool"),
    "modprobe": (_allows("/sbin/modprobe"), "kernel-tool"),
    "sudoedit of a file": (_allows("sudoedit /etc/hosts"), "sudoedit"),
    "sudoedit of a pattern": (_allows("sudoedit /srv/*/motd"), "sudoedit"),
    "a command below /home": (_allows('/home/alice/run ""'), "writable-command"),
    "a command in /tmp": (_allows("/tmp/x"), "writable-command"),
    "a writable command with a digest": (_allows(f'{DIGEST} /tmp/x ""'), "writable-command"),
    "SETENV": (f"host-agent ALL=(root) NOPASSWD: SETENV: {WRAPPERS}/zfs-list\n", "setenv"),
    "CHROOT": (f"host-agent ALL=(root) CHROOT=* NOPASSWD: {WRAPPERS}/zfs-list\n", "chroot"),
    "CWD": (f"host-agent ALL=(root) CWD=* NOPASSWD: {WRAPPERS}/zfs-list\n", "any-directory"),
    "FOLLOW": (
        "host-agent ALL=(root) NOPASSWD: FOLLOW: sudoedit /etc/hosts\n",
        "sudoedit-follow",
    ),
    "our wrapper as anybody": (_allows(f"{WRAPPERS}/zfs-list", "(ALL)"), "runas-all"),
    "git as root": (_allows(f"{WRAPPERS}/git"), "wrapper-changed"),
    "git as a stranger": (_allows(f"{WRAPPERS}/git", "(postgres)"), "wrapper-changed"),
    "git as several with root": (
        _allows(f"{WRAPPERS}/git", "(librarian, root)"),
        "wrapper-changed",
    ),
    "a root wrapper of an identity's user": (
        f"librarian ALL=(root) NOPASSWD: {WRAPPERS}/zfs-list\n",
        "past-the-agent",
    ),
    "rights of an identity's user": ("librarian ALL=(root) NOPASSWD: /sbin/zfs\n", "storage"),
    "a shell as an identity's user": (_allows("/bin/sh", "(librarian)"), "shell"),
    "a continued line": ("host-agent ALL=(root) \\\n  NOPASSWD: \\\n  /bin/sh\n", "shell"),
    "no authentication": ("Defaults !authenticate\n", "no-authentication"),
    "no authentication of this user": ("Defaults:host-agent !authenticate\n", "no-authentication"),
    "the whole environment": ("Defaults !env_reset\n", "environment-kept"),
    "setenv for all": ("Defaults setenv\n", "setenv"),
    "LD_PRELOAD kept": ('Defaults env_keep += "LD_PRELOAD"\n', "env-keep"),
    "LD_* kept": ('Defaults env_keep += "LANG LD_*"\n', "env-keep"),
    "all kept": ('Defaults env_keep = "*"\n', "env-keep"),
    "BASH_ENV kept of this host": ("Defaults@box env_keep += BASH_ENV\n", "env-keep"),
    "PYTHONPATH checked": ("Defaults env_check += PYTHONPATH\n", "env-check"),
    "a variable of which nothing is known": (
        'Defaults env_keep += "WIDGET"\n',
        "variable-not-known",
    ),
    "no secure path": ("Defaults !secure_path\n", "path-kept"),
    "a writable path": ('Defaults secure_path="/usr/bin:/tmp/bin"\n', "writable-path"),
    "a relative path": ('Defaults secure_path="/usr/bin:."\n', "writable-path"),
    "an exempt group": ("Defaults exempt_group=wrappers\n", "exempt-group"),
    "neither terminal nor session": ("Defaults !use_pty, !pam_session\n", "no-monitor"),
    "another root": ("Defaults runchroot=*\n", "chroot"),
    "not logged": ("Defaults !syslog\n", "not-logged"),
    "a ticket for ever": ("Defaults timestamp_timeout=-1\n", "shared-ticket"),
    "links followed": ("Defaults sudoedit_follow\n", "sudoedit-follow"),
    "a setting for what may run": (
        _allows("/bin/ls /root") + "Defaults!/bin/ls setenv\n",
        "setenv",
    ),
    "a setting for whom it runs as": (
        _allows("/bin/ls /root") + "Defaults>root !authenticate\n",
        "no-authentication",
    ),
    "a denial that a later line overrides": (
        "host-agent ALL=(ALL) !ALL\n" + _allows("/bin/sh"),
        "shell",
    ),
    "a denial for fewer users": (
        _allows("/bin/sh", "(ALL)") + "host-agent ALL=(bin) !ALL\n",
        "shell",
    ),
    "a denial on another host": (_allows("/bin/sh") + "host-agent web=(ALL) !ALL\n", "shell"),
    "an entry that ends later": (
        "host-agent ALL=(root) NOTAFTER=20991231235959Z NOPASSWD: /bin/sh\n",
        "shell",
    ),
    "the user's name in capitals": ("Host-Agent ALL=(ALL) NOPASSWD: ALL\n", "nopasswd-all"),
    "a group's name in capitals": ("%Wrappers ALL=(ALL) NOPASSWD: ALL\n", "nopasswd-all"),
    "an alias of a name in capitals": (
        "User_Alias A = HOST-AGENT\nA ALL=(root) ALL\n",
        "all-commands",
    ),
    "root's name in capitals": (_allows("/bin/sh", "(Root)"), "shell"),
    "git as root in capitals": (_allows(f"{WRAPPERS}/git", "(RooT)"), "wrapper-changed"),
    "the group disk in capitals": (_allows('/usr/bin/id ""', "(:Disk)"), "runas-group"),
    "no authentication of the name in capitals": (
        "Defaults:Host-Agent !authenticate\n",
        "no-authentication",
    ),
    "a setting for root in capitals": (
        _allows("/bin/ls /root") + "Defaults>RooT setenv\n",
        "setenv",
    ),
    "an identity's user by a name of an alias that is none": (
        "LIBRARIAN ALL=(root) NOPASSWD: /sbin/zfs\n",
        "storage",
    ),
    "root by a name of an alias that is none": (_allows("/bin/sh", "(ROOT)"), "shell"),
    "a group by a name of an alias that is none": (
        _allows('/usr/bin/id ""', "(:DISK)"),
        "runas-group",
    ),
    "this host by a name of an alias that is none": ("host-agent BOX=(ALL) ALL\n", "all-commands"),
    "an alias of names of aliases that are none": (
        "Runas_Alias SYS = ROOT\nHost_Alias HERE = BOX\nhost-agent HERE=(SYS) /bin/sh\n",
        "shell",
    ),
    "a setting for a name of an alias that is none": (
        "Defaults:LIBRARIAN !authenticate\n",
        "no-authentication",
    ),
    "a setting for this host by a name of an alias that is none": (
        "Defaults@BOX setenv\n",
        "setenv",
    ),
    "an exempt group in capitals": ("Defaults exempt_group=WRAPPERS\n", "exempt-group"),
    "an exclusion that the case keeps from holding": (
        "Defaults !case_insensitive_user\nALL, !Host-Agent, !librarian ALL=(ALL) NOPASSWD: ALL\n",
        "nopasswd-all",
    ),
    "an exclusion whose case counts for some only": (
        "Defaults:alice !case_insensitive_user\n" + "ALL, !Host-Agent, !librarian ALL=(ALL) ALL\n",
        "all-commands",
    ),
    "a denial that the case keeps from holding": (
        "Defaults !case_insensitive_user\n" + _allows("/bin/sh") + "Host-Agent ALL=(root) !ALL\n",
        "shell",
    ),
    "a case that counts and then does not": (
        "Defaults !case_insensitive_user, case_insensitive_user\nHost-Agent ALL=(ALL) ALL\n",
        "all-commands",
    ),
    "a network without a mask": ("host-agent 10.1.2.0=(ALL) ALL\n", "all-commands"),
    "a network without a mask, by an alias": (
        "Host_Alias NET = 10.1.2.0\nhost-agent NET=(ALL) ALL\n",
        "all-commands",
    ),
    "a network of IPv6 without a mask": ("host-agent 2001:db8::=(ALL) ALL\n", "all-commands"),
    "a network whose mask is not known": ("host-agent 192.0.0.0=(ALL) ALL\n", "all-commands"),
    "an odd mask": ("host-agent 10.9.2.0/255.0.255.0=(ALL) ALL\n", "all-commands"),
    "a setting for a network without a mask": ("Defaults@10.1.2.0 setenv\n", "setenv"),
    "a setting after a comment that ends in a backslash": (
        "Defaults:alice !requiretty  # old build box \\\nDefaults !authenticate\n",
        "no-authentication",
    ),
    "a grant after a comment that ends in a backslash": (
        "alice ALL=(ALL) ALL # x \\\nhost-agent ALL=(root) NOPASSWD: /bin/sh\n",
        "shell",
    ),
    "a comment with a backslash in a continued line": (
        "Defaults:alice \\\n  !requiretty # old \\\nDefaults setenv\n",
        "setenv",
    ),
    "a sign of comments between quotes": (
        'Defaults:alice passprompt="# \\"x" \\\n, !requiretty\nDefaults setenv\n',
        "setenv",
    ),
    "a setting for another name of a command": (
        _allows('/usr/bin/true ""') + "Defaults!/bin/true setenv\n",
        "setenv",
    ),
    "a wrapper's name in another directory": (_allows("/srv/zfs-list"), "not-known"),
    "a wrapper's name as an argument": (_allows(f"/bin/sh {WRAPPERS}/zfs-list"), "shell"),
}
"""What must be found: the fragment, and a rule that must be among those it breaks."""

OWN = _allows(f"{WRAPPERS}/zfs-list")

SAFE: Mapping[str, str] = {
    "nothing": "",
    "comments": "# host-agent ALL=(ALL) ALL\n#include: host-agent ALL=(ALL) ALL\n",
    "our grant": OWN,
    "our reader": _allows(f"{WRAPPERS}/sudoers-read"),
    "our grant for git": _allows(f"{WRAPPERS}/git", "(librarian)"),
    "our grant without arguments": _allows(f'{WRAPPERS}/zfs-list ""'),
    "our grant with fixed arguments": _allows(f"{WRAPPERS}/zfs-list tank"),
    "our grant with a digest": _allows(f"{DIGEST} {WRAPPERS}/zfs-list"),
    "our grant with a password": f"host-agent ALL=(root) {WRAPPERS}/zfs-list\n",
    "our grant with root left out": f"host-agent ALL=NOPASSWD: {WRAPPERS}/zfs-list\n",
    "our grants by aliases": (
        f"Cmnd_Alias AGENT = {WRAPPERS}/zfs-list, {WRAPPERS}/sudoers-read\n"
        "User_Alias WHO = host-agent\nWHO ALL=(root) NOPASSWD: AGENT\n"
    ),
    "our grants in one entry": _allows(f"{WRAPPERS}/zfs-list, {WRAPPERS}/sudoers-read"),
    "our grant on this host": f"host-agent box=(root) NOPASSWD: {WRAPPERS}/zfs-list\n",
    "our grant without exec": f"host-agent ALL=(root) NOPASSWD: NOEXEC: {WRAPPERS}/zfs-list\n",
    "our grant continued": f"host-agent ALL=(root) \\\n  NOPASSWD: {WRAPPERS}/zfs-list\n",
    "root": "root ALL=(ALL:ALL) ALL\n",
    "root without a password": "root ALL=(ALL:ALL) NOPASSWD: ALL\n",
    "root by number": "#0 ALL=(ALL) ALL\n",
    "another group": "%sudo ALL=(ALL:ALL) ALL\n",
    "another user": "alice ALL=(ALL) NOPASSWD: ALL\n",
    "another user's number": "#1234 ALL=(ALL) NOPASSWD: ALL\n",
    "another host": "host-agent web=(ALL) NOPASSWD: ALL\n",
    "another network": "host-agent 198.51.100.0/24=(ALL) NOPASSWD: ALL\n",
    "every host but this": "host-agent ALL, !box=(ALL) NOPASSWD: ALL\n",
    "everybody but this user": "ALL, !host-agent, !librarian ALL=(ALL) ALL\n",
    "only a denial": "host-agent ALL=(ALL) !ALL\n",
    "taken back later": _allows("ALL", "(ALL)") + "host-agent ALL=(ALL) !ALL\n",
    "taken back at once": _allows("/bin/sh, !ALL"),
    "over since long": "host-agent ALL=(root) NOTAFTER=20200101000000Z NOPASSWD: ALL\n",
    "as oneself": "host-agent ALL=(host-agent) NOPASSWD: ALL\n",
    "a command that does nothing": _allows('/usr/bin/true ""'),
    "the usual settings": (
        "Defaults env_reset\nDefaults mail_badpass\nDefaults use_pty\n"
        'Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"\n'
    ),
    "settings for others": "Defaults:alice !authenticate\nDefaults:%sudo env_keep += EDITOR\n",
    "settings for other hosts": "Defaults@web !env_reset\n",
    "settings for what may not run": OWN + "Defaults!/usr/bin/less setenv\n",
    "a setting put right again": "Defaults !authenticate\nDefaults authenticate\n",
    "a variable taken out again": (
        "Defaults env_keep += LD_PRELOAD\nDefaults env_keep -= LD_PRELOAD\n"
    ),
    "harmless variables": 'Defaults env_keep += "LANG LC_* TZ COLORTERM"\n',
    "another user whose case counts": (
        "Defaults !case_insensitive_user\nHost-Agent ALL=(ALL) NOPASSWD: ALL\n"
    ),
    "another group whose case counts": (
        "Defaults !case_insensitive_group\n%Wrappers ALL=(ALL) NOPASSWD: ALL\n"
    ),
    "everybody but this user in capitals": "ALL, !Host-Agent, !Librarian ALL=(ALL) ALL\n",
    "taken back later in capitals": _allows("ALL") + "HOST-AGENT ALL=(Root) !ALL\n",
    "a name that only looks alike": "host-\u212agent ALL=(ALL) ALL\nhost-agents ALL=(ALL) ALL\n",
    "another network without a mask": "host-agent 10.1.0.0, 198.51.100.0=(ALL) ALL\n",
    "another odd mask": "host-agent 10.9.2.0/0.0.0.255=(ALL) ALL\n",
    "settings for another network": "Defaults@10.1.3.0 setenv\n",
    "settings for a command of that name elsewhere": (
        _allows('/usr/bin/true ""') + "Defaults!/usr/local/bin/true setenv\n"
    ),
    "a comment that ends in a backslash": f"Defaults:alice setenv # x \\\n{OWN}",
    "an alias of the user's name that means another": (
        "User_Alias LIBRARIAN = alice\nLIBRARIAN ALL=(ALL) NOPASSWD: ALL\n"
    ),
    "an alias of the host's name that means another": (
        "Host_Alias BOX = web\nhost-agent BOX=(ALL) NOPASSWD: ALL\n"
    ),
    "another name of an alias that is none": "ALICE ALL=(ALL) NOPASSWD: ALL\n",
    "another host by a name of an alias that is none": "host-agent WEB=(ALL) NOPASSWD: ALL\n",
    "a setting for another name of an alias that is none": "Defaults:ALICE !authenticate\n",
    "an alias of itself": "User_Alias A = B : B = A\nA ALL=(ALL) ALL\n",
    "an alias nobody defined": "host-agent ALL=(root) NOPASSWD: NOBODY\n",
}
"""What must be passed over."""
