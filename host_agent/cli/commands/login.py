"""`host-agent login`: a bundle becomes a host of `client.toml`; the host is asked who this is."""

import argparse
import os
import stat
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from host_agent.cli import exit_status
from host_agent.cli.connection_settings import client_path
from host_agent.cli.contexts import AUTHORITY, IDENTITY, Contexts, told
from host_agent.cli.terminal import render
from host_agent.errors import (
    EX_DATAERR,
    EX_OK,
    CertificateRefusedError,
    ConfigurationError,
    ConnectionFailedError,
    HostAgentError,
    InvalidAnswerError,
    ProblemError,
    UsageError,
)

if TYPE_CHECKING:
    from host_agent.client import OwnIdentity
    from host_agent.client.bundle import Bundle

STANDARD_INPUT = "-"
CHECK_SECONDS = 5.0
"""How long each address of the host may take to answer."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `login` to the command line."""
    parser = subparsers.add_parser(
        "login",
        help="store a bundle, so that `--host NAME` reaches that host",
        description="Store certificate, key and addresses of a bundle, the file that an"
        " administrator hands out, in ~/.config/host-agent; then ask the host who this is. Every"
        " client command takes `--host NAME` after that. A host that cannot be reached now is"
        " stored too. Ends with 65 where the bundle cannot be used, with 64 where the name is taken"
        " by another host or person, with 77 where the host answers and refuses.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="the file; `-` reads standard input")
    parser.add_argument(
        "--host", metavar="NAME", type=_name, help="what to call the host here; default: its name"
    )
    parser.add_argument(
        "--url", metavar="URL", type=_url, help="where to reach it, if not as the bundle says"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="take the place of another host or person of that name",
    )
    parser.add_argument("--json", action="store_true", help="print what was stored as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Store the bundle, ask the host, and return the exit status.

    Raises:
        UsageError: the name is taken.
        ConfigurationError: the bundle cannot be read, or nothing can be stored.
    """
    from host_agent.client.bundle import BundleError, decode

    try:
        bundle = decode(_read(args.bundle))
        bundle.check(datetime.now(UTC))
    except BundleError as error:
        given = "the bundle" if args.bundle == STANDARD_INPUT else render.visible(args.bundle)
        render.warn(f"{given} was not stored: {render.visible(str(error))}.")
        return EX_DATAERR
    name = args.host or bundle.host
    contexts = Contexts(path=client_path(Path.home()))
    urls = (args.url,) if args.url else bundle.urls
    with contexts.alone():
        if not args.force:
            _require_free(contexts, name, bundle)
        _store(contexts, name, bundle, urls[0])
    answer = _ask(contexts.directory / name, urls)
    if answer.url != urls[0]:
        with contexts.alone():
            _store(contexts, name, bundle, answer.url)
    status = _tell(args, contexts, name, bundle, answer)
    if args.bundle != STANDARD_INPUT:
        render.warn(f"delete {render.visible(args.bundle)} now: the key in it is stored.")
    return status


# -- the bundle -----------------------------------------------------------------------------------


def _read(given: str) -> bytes:
    """Return the file's bytes; of one that others may read, a person is warned.

    Raises:
        ConfigurationError: it cannot be read.
    """
    from host_agent.client.bundle import MAX_BYTES

    if given == STANDARD_INPUT:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with told():
        # O_NONBLOCK: opening a FIFO must not hang before it is seen to be one.
        descriptor = os.open(given, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(descriptor, "rb") as stream:  # noqa: PTH123 - a descriptor, not a path
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigurationError([f"{given}: not a regular file."])
            data = stream.read(MAX_BYTES + 1)
    if status.st_mode & 0o077:
        render.warn(
            f"warning: others on this machine may read {render.visible(given)}, and a private key"
            " is in it. Delete it; if somebody may have read it, have the certificate revoked."
        )
    return data


def _require_free(contexts: Contexts, name: str, bundle: "Bundle") -> None:
    """Refuse a name that another host or person has; the same one's is renewed.

    Raises:
        UsageError: it is taken.
    """
    from cryptography import x509

    found = contexts.read()
    if name not in found.hosts:
        return
    old = found.of_host(name)
    taken = f"{name} is in {found.path} already, as"
    advice = "Give another name by --host, or --force to put this one in its place."
    host = found.hosts[name].get("host")
    if host != bundle.host:
        message = f"{taken} another host, {host or old.get('url')}. {advice}"
        raise UsageError(message)
    try:
        stored = x509.load_pem_x509_certificate(Path(old["cert"]).read_bytes())
        same = x509.load_pem_x509_certificate(bundle.certificate.encode())
        authority = x509.load_pem_x509_certificate(Path(old["ca"]).read_bytes())
        ours = x509.load_pem_x509_certificate(bundle.ca.encode())
    except (KeyError, OSError, ValueError):
        return  # what is there cannot be used
    if authority != ours:
        message = f"{taken} a host of that name under another authority. {advice}"
        raise UsageError(message)
    if stored.subject != same.subject:
        message = f"{taken} somebody else, {stored.subject.rfc4514_string()}. {advice}"
        raise UsageError(message)


def _store(contexts: Contexts, name: str, bundle: "Bundle", url: str) -> None:
    contexts.put(
        name,
        url=url,
        host=bundle.host,
        identity=f"{bundle.private_key.strip()}\n{bundle.certificate.strip()}\n",
        ca=f"{bundle.ca.strip()}\n",
    )


# -- the host -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answered:
    """What came of asking the host: who this is there, or the error of the first address."""

    url: str
    identity: "OwnIdentity | None" = None
    error: Exception | None = None


def _ask(keys: Path, urls: tuple[str, ...]) -> _Answered:
    """Ask at each address until one answers.

    Raises:
        ConfigurationError: what was stored cannot be used.
    """
    from host_agent.client import Client

    identity, failed = keys / IDENTITY, None
    for url in urls:
        try:
            with Client(
                url=url,
                cert=identity,
                key=identity,
                ca=keys / AUTHORITY,
                timeout_seconds=CHECK_SECONDS,
            ) as client:
                return _Answered(url=url, identity=client.whoami())
        except (ProblemError, CertificateRefusedError) as error:
            return _Answered(url=url, error=error)
        except (ConnectionFailedError, InvalidAnswerError) as error:
            failed = failed or error
    return _Answered(url=urls[0], error=failed)


def _tell(
    args: argparse.Namespace, contexts: Contexts, name: str, bundle: "Bundle", answer: _Answered
) -> int:
    """Say what was stored and what the host answered; return the exit status."""
    found = contexts.read()
    is_default = found.implied_quietly() == name
    if args.json:
        told_as = {
            "host": name,
            "url": answer.url,
            "cn": bundle.cn,
            "is_default": is_default,
            "answers": answer.identity is not None,
            "identity": answer.identity.body if answer.identity is not None else None,
        }
        print(render.json_text(told_as))
    else:
        print(f"stored {name}: {bundle.cn} at {answer.url}")
        print(
            "it is the host that is meant where you name none"
            if is_default
            else f"reach it by --host {name}; `host-agent hosts default {name}` makes it the one"
            " that is meant where you name none"
        )
    if answer.error is not None:
        return _tell_failed(name, answer.error)
    if answer.identity is not None and not args.json:
        who = answer.identity
        roles = ", ".join(who.roles) or "no role"
        print(
            f"{render.visible(who.host)} answers: you are {render.visible(who.cn)}"
            f" ({render.visible(roles)}), acting for {render.visible(who.owner)}"
        )
    if answer.identity is not None and answer.identity.host != bundle.host:
        render.warn(
            f"warning: the bundle is for {bundle.host}, and what answers calls itself"
            f" {render.visible(answer.identity.host)}."
        )
    return EX_OK


def _tell_failed(name: str, error: Exception) -> int:
    """Say why the host did not tell who this is: one that cannot be reached is no failure."""
    from host_agent.client.exchange import HandshakeError

    is_refused = isinstance(error, (ProblemError, CertificateRefusedError, HandshakeError))
    if isinstance(error, HostAgentError) or is_refused:
        render.warn(f"{name} is stored, but cannot be used as it is:")
        return exit_status.end(error, as_json=False)
    render.warn(f"{name} is stored; it does not answer now: {render.visible(str(error))}")
    return EX_OK


def _name(text: str) -> str:
    from host_agent.client.bundle import HOST_NAME

    if HOST_NAME.fullmatch(text):
        return text
    message = "a name is 1 to 64 letters, digits and `._-`, a letter or digit first"
    raise argparse.ArgumentTypeError(message)


def _url(text: str) -> str:
    from host_agent.client.bundle import is_url

    if is_url(text):
        return text
    message = "give it as https://HOST or https://HOST:PORT"
    raise argparse.ArgumentTypeError(message)
