"""Groups whose members come close to root without sudo, and who of the audited users is in one.

One table: a rule of sudoers that lets a command run with such a group is judged by it as well.
"""

from collections.abc import Iterable, Iterator, Mapping

from host_agent.sudoers.host import Subject
from host_agent.sudoers.values import Origin, Severity, SudoersFinding

GROUP_FILE = "/etc/group"

_DEVICES = "reads and writes the host's disks as they are, files of root and all"
_CONTAINERS = "starts containers that have root's file system in them"
_POLKIT = "is what polkit takes for an administrator, and what sudoers often grants everything"
_LOGS = "reads what every service logs, secrets that were logged included"

POWERS: Mapping[str, tuple[Severity, str]] = {
    "root": (Severity.CRITICAL, "may do what root's group may, with many of root's files"),
    "disk": (Severity.CRITICAL, _DEVICES),
    "kmem": (Severity.CRITICAL, "reads the kernel's memory"),
    "mem": (Severity.CRITICAL, "reads the kernel's memory"),
    "docker": (Severity.CRITICAL, _CONTAINERS),
    "lxd": (Severity.CRITICAL, _CONTAINERS),
    "lxc": (Severity.HIGH, _CONTAINERS),
    "incus": (Severity.HIGH, _CONTAINERS),
    "incus-admin": (Severity.CRITICAL, _CONTAINERS),
    "podman": (Severity.HIGH, _CONTAINERS),
    "libvirt": (Severity.CRITICAL, "starts machines with any file or disk of the host in them"),
    "shadow": (Severity.HIGH, "reads the hashes of everybody's passwords"),
    "staff": (Severity.HIGH, "may write /usr/local, whose programs root runs"),
    "sudo": (Severity.HIGH, _POLKIT),
    "wheel": (Severity.HIGH, _POLKIT),
    "admin": (Severity.HIGH, _POLKIT),
    "backup": (Severity.MEDIUM, "reads what is set aside for backups"),
    "operator": (Severity.MEDIUM, "may read disks and shut the host down on some systems"),
    "adm": (Severity.MEDIUM, _LOGS),
    "systemd-journal": (Severity.MEDIUM, _LOGS),
    "ssl-cert": (Severity.MEDIUM, "reads private keys of this host's services"),
    "tty": (Severity.MEDIUM, "writes to the terminals of others"),
    "crontab": (Severity.MEDIUM, "may write where cron looks for work"),
    "sys": (Severity.MEDIUM, "owns parts of the system on some hosts"),
    "utmp": (Severity.LOW, "writes who is logged in"),
    "kvm": (Severity.LOW, "runs machines of its own"),
    "plugdev": (Severity.LOW, "mounts what is plugged in"),
    "sambashare": (Severity.LOW, "shares directories over the network"),
    "www-data": (Severity.LOW, "has what the web server's group has"),
}
"""For each group how bad membership is, and why: what its members can do without sudo."""


def memberships(subjects: Iterable[Subject]) -> Iterator[SudoersFinding]:
    """Yield a finding for each such group that one of `subjects` is in, worst first.

    Users that do not exist have no memberships, and root needs none. What is low is not told: it
    only counts where sudoers grants the group.
    """
    members: dict[str, list[str]] = {}
    for subject in subjects:
        if subject.uid in (None, 0):
            continue
        for group in sorted(subject.groups):
            members.setdefault(group, []).append(subject.name)
    for group, (severity, power) in POWERS.items():
        if group in members and severity is not Severity.LOW:
            names = ", ".join(members[group])
            verb = "is" if len(members[group]) == 1 else "are"
            yield SudoersFinding(
                origin=Origin(file=GROUP_FILE, line=0),
                rule=f"group-{group}",
                severity=severity,
                reason=f"{names} {verb} in the group {group}, which {power}.",
                remedy=f"Take it out of the group: gpasswd --delete USER {group}; then restart the"
                " agent, which keeps the groups that it was started with.",
            )
