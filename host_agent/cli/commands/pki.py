"""`host-agent pki`: a small CA on the command line, and a judge of certificates.

Works on the files of one directory, offline; `renew` alone talks to an agent, as its client.
"""

import argparse
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from host_agent.cli import bundling, renewals, renewing, requesting
from host_agent.cli.terminal import render
from host_agent.clock import rfc3339
from host_agent.errors import EX_DATAERR, EX_NOPERM, EX_OK, ConfigurationError, UsageError
from host_agent.identity.files import read_linked, read_plain
from host_agent.pki import authority
from host_agent.pki.door import load_certificates
from host_agent.pki.index import Issued
from host_agent.pki.profiles import Usage
from host_agent.pki.verification import reason_against

_DAYS = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)
_SERIAL = re.compile(r"(?:0x)?((?:[0-9a-f]{2}:)*[0-9a-f]{1,40})", re.ASCII | re.IGNORECASE)
_SOON_DAYS = 14


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `pki` and its commands to the command line."""
    parser = subparsers.add_parser(
        "pki",
        help="a small CA: issue, revoke and judge certificates",
        description="A small CA in a directory, and a judge of certificates. Keep the directory"
        " with ca.key on another machine than the agent's: who holds it makes identities.",
    )
    verbs = parser.add_subparsers(title="commands", dest="verb", metavar="COMMAND", required=True)
    _add_init(verbs)
    _add_issue(verbs)
    requesting.add_parsers(verbs, run)
    bundling.add_parser(verbs, run)
    _add_revoke(verbs)
    _add_crl(verbs)
    renewals.add_parser(verbs, run)
    renewing.add_parser(verbs, run)
    _add_list(verbs)
    _add_verify(verbs)


def run(args: argparse.Namespace) -> int:
    """Run the command of `pki` that `args` names; return a sysexits status.

    Raises:
        UsageError: an argument cannot be followed.
        ConfigurationError: the directory cannot be used.
    """
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        return command(args)
    except LookupError as error:
        return _say(str(error.args[0]), EX_DATAERR)
    except ValueError as error:
        raise UsageError(f"{str(error)[:1].upper()}{str(error)[1:]}.") from error


# -- the commands -----------------------------------------------------------------------------


def _init(args: argparse.Namespace) -> int:
    certificate = authority.init(args.dir, name=args.name, now=_now())
    _tell(f"made the CA in {args.dir}: ca.crt, ca.key and ca.crl")
    _tell(f"it ends on {certificate.not_valid_after_utc:%Y-%m-%d}")
    _tell("keep ca.key off the agent's host; the agent needs ca.crt and ca.crl only")
    return EX_OK


def _issue(args: argparse.Namespace) -> int:
    issued = authority.issue(
        args.dir,
        common_name=args.cn,
        usage=Usage(args.usage),
        names=args.san,
        days=args.days,
        out=args.out,
        p12=args.p12,
        p12_password=_password(args.p12_password_file),
        now=_now(),
    )
    stem = args.dir / issued.name
    _tell(f"issued {stem}.crt and {stem}.key for {issued.common_name} ({issued.usage})")
    _tell(f"serial {issued.serial:x}, ends on {issued.not_valid_after:%Y-%m-%d}")
    _tell(f"fingerprint {issued.fingerprint}")
    if args.p12 is not None:
        how = "" if args.p12_password_file else ", without a password: import it, then delete it"
        _tell(f"browser bundle {args.p12}{how}")
    return EX_OK


def _revoke(args: argparse.Namespace) -> int:
    fresh = authority.revoke(args.dir, common_name=args.cn, serial=args.serial, now=_now())
    for issued in fresh:
        _tell(f"revoked serial {issued.serial:x} of {issued.common_name}")
    if not fresh:
        _tell("nothing to revoke: that was revoked before")
    _tell(f"signed {args.dir / 'ca.crl'}; it counts once the agent's crl file is replaced by it")
    return EX_OK


def _crl(args: argparse.Namespace) -> int:
    number = authority.sign_crl(args.dir, days=args.days, now=_now(), publish=args.publish)
    _tell(f"signed {args.dir / 'ca.crl'}, number {number}, good for {args.days} days")
    if args.publish is not None:
        _tell(f"put it in the place of {args.publish}")
    return EX_OK


def _list(args: argparse.Namespace) -> int:
    now = _now()
    issued = authority.list_issued(args.dir)
    if args.json:
        rows = [_row(entry, now) for entry in issued]
        sys.stdout.write(render.json_text({"certificates": rows}) + "\n")
        return EX_OK
    columns = ("name", "usage", "state", "days left", "ends", "serial")
    cells = [
        (
            render.visible(entry.common_name),
            str(entry.usage),
            _state(entry, now),
            str(entry.days_left(now)),
            f"{entry.not_valid_after:%Y-%m-%d}",
            f"{entry.serial:x}",
        )
        for entry in issued
    ]
    render.console().print(render.table(columns, cells))
    return EX_OK


def _verify(args: argparse.Namespace) -> int:
    if args.crl is not None and args.ca is None:
        message = "--crl goes with --ca; --dir has its own list"
        raise ValueError(message)
    try:
        data = read_linked(args.file)
        leaf = load_certificates(data)[0]
    except ValueError as error:
        return _say(_naming(args.file, error), EX_DATAERR)
    authorities, lists = args.ca, args.crl
    if authorities is None:
        authorities, lists = args.dir / "ca.crt", args.dir / "ca.crl"
    try:
        ca = read_linked(authorities)
        crl = None if lists is None else read_linked(lists)
    except ValueError as error:
        raise ConfigurationError([str(error)]) from error
    reason = reason_against(data, ca, crl, now=_now())
    if crl is None and not args.json:
        render.warn("no revocation list is asked; --crl names one")
    if args.json:
        verdict = {"file": str(args.file), "let_in": reason is None, "reason": reason}
        sys.stdout.write(render.json_text(verdict) + "\n")
        return EX_OK if reason is None else EX_NOPERM
    if reason is not None:
        return _say(f"{args.file} would not be let in: {reason}", EX_NOPERM)
    ends = leaf.not_valid_after_utc
    _tell(f"{args.file} would be let in until {ends:%Y-%m-%d}, if its name is registered")
    return EX_OK


# -- what they print --------------------------------------------------------------------------


def _row(issued: Issued, now: datetime) -> dict[str, object]:
    revoked_at = issued.revoked_at
    return {
        "cn": issued.common_name,
        "usage": str(issued.usage),
        "state": issued.state(now),
        "days_left": issued.days_left(now),
        "serial": f"{issued.serial:x}",
        "fingerprint": issued.fingerprint,
        "not_before": rfc3339(issued.not_valid_before),
        "not_after": rfc3339(issued.not_valid_after),
        "revoked_at": None if revoked_at is None else rfc3339(revoked_at),
        "file": f"{issued.name}.crt",
    }


def _state(issued: Issued, now: datetime) -> str:
    state = issued.state(now)
    is_ending = state == "valid" and issued.days_left(now) < _SOON_DAYS
    return "valid, ends soon" if is_ending else state


def _naming(path: Path, error: ValueError) -> str:
    return str(error) if str(path) in str(error) else f"{path} cannot be judged: {error}"


def _tell(line: str) -> None:
    sys.stdout.write(render.visible(line) + "\n")


def _say(sentence: str, status: int) -> int:
    render.warn(render.visible(sentence))
    return status


def _now() -> datetime:
    return datetime.now(UTC)


# -- their arguments --------------------------------------------------------------------------


def _add_init(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(verbs, "init", _init, "make a CA: ca.crt, ca.key and ca.crl")
    parser.add_argument(
        "--name", default=authority.DEFAULT_NAME, help=f"default: {authority.DEFAULT_NAME}"
    )


def _add_issue(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(verbs, "issue", _issue, "issue a certificate with a fresh key")
    parser.add_argument("--cn", required=True, help="the common name, which names the identity")
    parser.add_argument("--usage", required=True, choices=[str(usage) for usage in Usage])
    parser.add_argument(
        "--san",
        action="append",
        default=[],
        metavar="DNS:NAME|IP:ADDRESS",
        help="a name of the server, repeatable; default: the common name and loopback's names",
    )
    parser.add_argument("--days", type=_days, metavar="N", help=f"default: {authority.LEAF_DAYS}")
    parser.add_argument(
        "--out", metavar="NAME", help="write NAME.crt and NAME.key; default: the common name"
    )
    parser.add_argument(
        "--p12", type=Path, metavar="FILE", help="also write a PKCS #12 bundle, for browsers"
    )
    parser.add_argument(
        "--p12-password-file", type=Path, metavar="FILE", help="encrypt the bundle with its line"
    )


def _add_revoke(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(verbs, "revoke", _revoke, "revoke certificates and sign the CRL again")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--cn", help="every certificate of this common name")
    which.add_argument("--serial", type=_serial, metavar="HEX", help="the one of this serial")


def _add_crl(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(verbs, "crl", _crl, "sign the CRL again, before it ends")
    parser.add_argument(
        "--days",
        type=_days,
        default=authority.CRL_DAYS,
        metavar="N",
        help=f"default: {authority.CRL_DAYS}",
    )
    parser.add_argument(
        "--publish", type=Path, metavar="FILE", help="also put it in the place of FILE, in one step"
    )


def _add_list(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(verbs, "list", _list, "list what was issued, with the days left")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_verify(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _add(
        verbs,
        "verify",
        _verify,
        "would this client certificate be let in, else why not",
        has_directory=False,
    )
    trusted = parser.add_mutually_exclusive_group(required=True)
    trusted.add_argument("--dir", type=Path, help="the directory of the CA: ca.crt and ca.crl")
    trusted.add_argument("--ca", type=Path, metavar="FILE", help="what `client_ca` names")
    parser.add_argument("--crl", type=Path, metavar="FILE", help="with --ca: what `crl` names")
    parser.add_argument("file", type=Path, metavar="FILE", help="the certificate, PEM or DER")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    verb: str,
    command: Callable[[argparse.Namespace], int],
    help_text: str,
    *,
    has_directory: bool = True,
) -> argparse.ArgumentParser:
    description = f"{help_text[:1].upper()}{help_text[1:]}."
    parser = verbs.add_parser(verb, help=help_text, description=description)
    if has_directory:
        parser.add_argument("--dir", required=True, type=Path, help="the directory of the CA")
    parser.set_defaults(run=run, command=command)
    return parser


def _days(text: str) -> int:
    if _DAYS.fullmatch(text) is None or int(text) > authority.MAX_DAYS:
        message = f"{text!a} is not a number of days from 1 to {authority.MAX_DAYS}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _serial(text: str) -> int:
    found = _SERIAL.fullmatch(text)
    if found is None:
        message = f"{text!a} is not a serial number in hexadecimal digits"
        raise argparse.ArgumentTypeError(message)
    return int(found[1].replace(":", ""), 16)


def _password(path: Path | None) -> bytes | None:
    if path is None:
        return None
    password = read_plain(path, limit=1024).removesuffix(b"\n").removesuffix(b"\r")
    if not password:
        message = f"{path} holds no password"
        raise ValueError(message)
    return password
