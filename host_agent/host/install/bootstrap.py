"""A first authority, certificates, bundles and configuration, for a host that has none of them yet.

Each piece is made where it is missing and never touched again. The authority's directory is root's
alone and stays there only until somebody moves it to another machine; from then on nothing is made
here any more. A person's key is in their bundle and nowhere else.
"""

import re
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from host_agent.client.bundle import Bundle
from host_agent.config import Config
from host_agent.host.install import layout
from host_agent.host.install.first import PORT, First, identity
from host_agent.host.install.plan import Work
from host_agent.host.install.values import (
    FileKind,
    InstallationError,
    InstallReport,
    WantedDirectory,
    WantedFile,
)
from host_agent.pki import authority
from host_agent.pki.profiles import Usage

SERVER = "server"
_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}", re.ASCII)
_PUBLIC_MODE = 0o644
_KEY_MODE = 0o400
_CONFIGURATION_MODE = 0o640
_PRIVATE_DIRECTORY_MODE = 0o700
_BUNDLE_MODE = 0o600


def make_first(
    work: Work, first: First, known: Config | None, *, now: datetime, report: InstallReport
) -> None:
    """Make what is missing of authority, certificates, bundles and configuration.

    `known` is the configuration that is there already, if any: it stays as it is, and nobody gets a
    certificate who was not named.

    Raises:
        ConfigurationError: the authority's directory holds none that can be used.
        InstallationError, OSError: something cannot be made.
    """
    first = first.completed() if known is None else first
    certificates, people = list(_missing_certificates(work)), list(_missing_people(work, first))
    if not work.is_dry and (certificates or people):
        _make_certificates(work, first, now=now, report=report)
        _make_bundles(work, first, people, known, now=now, report=report)
    elif work.is_dry:
        bundles = (_bundle_path(cn) for cn in people)
        report.changes += [work.would_make(path) for path in (*certificates, *bundles)]
    if known is None:
        configuration = WantedFile(
            path=layout.CONFIGURATION,
            content=first.configuration().encode(),
            mode=_CONFIGURATION_MODE,
            group=layout.USER,
        )
        work.put_once(configuration, report)
    if people:
        report.advice.append(
            "Hand each bundle to whom it is for, and remove it here. It holds a private key: who"
            f" has the file is that person. They take it by `host-agent login FILE`."
            f" {layout.BUNDLE_DIR}/ has: {', '.join(people)}"
        )
    if _is_away(work):
        names = {one.cn for one in known.identities} if known is not None else set()
        for cn in (cn for cn in first.people if cn not in names):
            what = (
                f"a bundle for {cn}: the authority is not here any more; on its machine:"
                f" host-agent pki issue --cn {cn} --usage client, then host-agent pki bundle"
            )
            report.add(FileKind.SKIPPED, what)
    _advise_trial(first, known, people, report)


def _missing_certificates(work: Work) -> Iterator[str]:
    """Yield the paths of the authority and of the agent's copies that a bootstrap would make."""
    for path in (f"{layout.AUTHORITY_DIR}/ca.crt", *_copies()):
        if work.tree.find(path) is None and not (_is_away(work) and path not in _copies()):
            yield path


def _missing_people(work: Work, first: First) -> Iterator[str]:
    """Yield who has no certificate yet; nobody once the authority is on another machine."""
    if not _is_away(work):
        for cn in first.people:
            if work.tree.find(f"{layout.AUTHORITY_DIR}/{cn}.crt") is None:
                yield cn


def _is_away(work: Work) -> bool:
    """Return whether the authority was here and has been taken to another machine."""
    is_here = work.tree.find(f"{layout.AUTHORITY_DIR}/ca.crt") is not None
    return not is_here and work.tree.find(f"{layout.PKI_DIR}/ca.crt") is not None


# -- certificates ---------------------------------------------------------------------------------


def _make_certificates(work: Work, first: First, *, now: datetime, report: InstallReport) -> None:
    if _is_away(work):
        missing = list(_missing_certificates(work))
        if missing:
            message = (
                f"{missing[0]} is missing, and the authority is not in {layout.AUTHORITY_DIR} any"
                " more: put the file there from the authority's machine"
            )
            raise InstallationError(message)
        return
    work.directory(WantedDirectory(path=layout.AUTHORITY_DIR, mode=_PRIVATE_DIRECTORY_MODE), report)
    work.tree.guard(layout.AUTHORITY_DIR)
    place = work.tree.at(layout.AUTHORITY_DIR)
    if not (place / "ca.crt").exists():
        authority.init(place, name=f"host-agent CA of {_host_name()}", now=now)
        report.later.append(
            f"Move {layout.AUTHORITY_DIR} to another machine and remove it here, once everybody has"
            " a bundle: whoever takes ca.key can be anybody. Before the revocation list ends (30"
            " days), sign it again there with `host-agent pki crl` and copy ca.crl here; while the"
            " directory is here, `systemctl enable --now host-agent-crl.timer` does it weekly."
        )
    if not (place / f"{SERVER}.crt").exists():
        authority.issue(
            place,
            common_name=_host_name(),
            usage=Usage.SERVER,
            names=first.alternative_names(_host_name()),
            out=SERVER,
            now=now,
        )
        report.changes.append(work.made(f"{layout.AUTHORITY_DIR}/{SERVER}.crt and its key"))
    for path, (name, mode, owner) in _copies().items():
        content = (place / name).read_bytes()
        work.put_once(WantedFile(path=path, content=content, mode=mode, owner=owner), report)


def _copies() -> dict[str, tuple[str, int, str]]:
    """Return what the agent gets of the authority's files: target, file, mode, owner."""
    pki = layout.PKI_DIR
    return {
        f"{pki}/ca.crt": ("ca.crt", _PUBLIC_MODE, "root"),
        f"{pki}/ca.crl": ("ca.crl", _PUBLIC_MODE, "root"),
        f"{pki}/server.crt": (f"{SERVER}.crt", _PUBLIC_MODE, "root"),
        f"{pki}/server.key": (f"{SERVER}.key", _KEY_MODE, layout.USER),
    }


# -- bundles --------------------------------------------------------------------------------------


def _make_bundles(
    work: Work,
    first: First,
    people: list[str],
    known: Config | None,
    *,
    now: datetime,
    report: InstallReport,
) -> None:
    if not people:
        return
    directory = WantedDirectory(path=layout.BUNDLE_DIR, mode=_PRIVATE_DIRECTORY_MODE)
    work.directory(directory, report)
    place = work.tree.at(layout.AUTHORITY_DIR)
    port = PORT if known is None else known.server.address[1]
    for cn in people:
        path = _bundle_path(cn)
        if work.tree.find(path) is not None:
            message = f"{path} is there, and {cn} has no certificate; remove it"
            raise InstallationError(message)
        authority.issue(place, common_name=cn, usage=Usage.CLIENT, now=now)
        content = read_bundle(place, cn=cn, host=_host_name(), urls=first.urls(port)).encode()
        work.put_once(WantedFile(path=path, content=content, mode=_BUNDLE_MODE), report)
        work.tree.remove(f"{layout.AUTHORITY_DIR}/{cn}.key")


def read_bundle(place: Path, *, cn: str, host: str, urls: tuple[str, ...]) -> Bundle:
    """Return the bundle of somebody whose certificate and key lie in the authority at `place`.

    Raises:
        OSError: a file is not there, or cannot be read.
    """
    return Bundle(
        host=host,
        cn=cn,
        urls=urls,
        certificate=(place / f"{cn}.crt").read_text(encoding="ascii"),
        private_key=(place / f"{cn}.key").read_text(encoding="ascii"),
        ca=(place / "ca.crt").read_text(encoding="ascii"),
    )


def _bundle_path(cn: str) -> str:
    return f"{layout.BUNDLE_DIR}/{cn}.bundle"


def _host_name() -> str:
    name = socket.gethostname()
    return name if _HOST_NAME.fullmatch(name) else "localhost"


# -- what comes next ------------------------------------------------------------------------------


def _advise_trial(
    first: First, known: Config | None, people: list[str], report: InstallReport
) -> None:
    if known is None:
        report.later.insert(
            0,
            f"Try it, as {first.callers[0]}: host-agent call systemd.restart"
            f' unit={layout.TRIAL_NAME} --reason "first try"; then, as {first.approvers[0]}:'
            " host-agent requests approve ID",
        )
        return
    for cn in sorted(set(people) - {known_one.cn for known_one in known.identities}):
        table = identity(cn, is_approver=cn in first.approvers)
        words = "; ".join(line.partition(" #")[0].rstrip() for line in table.splitlines())
        report.add(FileKind.SKIPPED, f"{layout.CONFIGURATION}: is yours; it does not know {cn} yet")
        report.advice.append(f"Let {layout.CONFIGURATION} know {cn}: {words}")
