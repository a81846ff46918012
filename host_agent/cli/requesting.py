"""`host-agent pki request` and `pki sign`: a key that stays, and a certificate for it."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from host_agent.cli.terminal import render
from host_agent.errors import EX_OK, EX_TEMPFAIL, UsageError
from host_agent.identity.files import read_linked
from host_agent.pki import authority
from host_agent.pki.profiles import Usage, key_hash
from host_agent.pki.request import SigningRequest, read_request, write_request
from host_agent.pki.signing import sign


def add_parsers(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    run: Callable[[argparse.Namespace], int],
) -> None:
    """Add `request` and `sign` to the commands of `pki`, which `run` runs."""
    parser = verbs.add_parser(
        "request",
        help="make a key here, and a signing request for it",
        description="Make NAME.key, 0600, which stays here, and NAME.csr, which goes to the"
        " authority. Nothing that exists is overwritten.",
    )
    parser.add_argument("--cn", required=True, help="the common name to ask for")
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="write PATH.key and PATH.csr; default: the CN here"
    )
    parser.set_defaults(run=run, command=_request)
    parser = verbs.add_parser(
        "sign",
        help="certify the key of a signing request, once you have said yes",
        description="Show what would be signed, ask, and write NAME.crt. The key is taken from the"
        " request and nothing else: what further it asks for is shown and left out.",
    )
    parser.add_argument("--dir", required=True, type=Path, help="the directory of the CA")
    parser.add_argument("--cn", help="the common name; where it is not given you are asked for it")
    parser.add_argument("--usage", required=True, choices=[str(usage) for usage in Usage])
    parser.add_argument(
        "--san",
        action="append",
        default=[],
        metavar="DNS:NAME|IP:ADDRESS",
        help="a name of the server, repeatable; default: the common name and loopback's names",
    )
    parser.add_argument(
        "--days",
        type=int,
        metavar="N",
        help=f"1 to {authority.MAX_DAYS}; default: {authority.LEAF_DAYS}",
    )
    parser.add_argument("--out", metavar="NAME", help="write NAME.crt; default: the common name")
    parser.add_argument("--yes", action="store_true", help="sign without asking; needs --cn")
    parser.add_argument("file", type=Path, metavar="FILE", help="the request, PEM")
    parser.set_defaults(run=run, command=_sign)


def _request(args: argparse.Namespace) -> int:
    authority.require_names(args.cn, _usage_of(args.cn), ())
    key, request = write_request(Path(args.cn) if args.out is None else args.out, args.cn)
    _tell(f"made {key}, which stays here, and {request} for {args.cn}")
    _tell(f"key sha256:{key_hash(read_request(request.read_bytes()).public_key)}")
    _tell("give the request to the authority, and tell its person the key's hash another way")
    return EX_OK


def _usage_of(common_name: str) -> Usage:
    """Return the use that has the grammar of a name: a server's may have capitals."""
    return Usage.CLIENT if common_name == common_name.lower() else Usage.SERVER


def _sign(args: argparse.Namespace) -> int:
    data = read_linked(args.file)
    try:
        request = read_request(data)
    except ValueError as error:
        message = f"{args.file} is not signed: {error}"
        raise ValueError(message) from error
    is_asked = sys.stdin.isatty() and not args.yes
    if not is_asked and not (args.yes and args.cn):
        message = "Nobody is here to be asked: give --cn and --yes, once you have seen the request."
        raise UsageError(message)
    for line in _shown(args, request):
        _tell(line)
    common_name = args.cn
    if is_asked:
        common_name = common_name or _answer("common name to certify: ")
        if _answer(f"sign this for {common_name}? [y/N] ") != "y":
            _tell("nothing was signed")
            return EX_TEMPFAIL
    issued = sign(
        args.dir,
        request,
        common_name=common_name,
        usage=Usage(args.usage),
        names=args.san,
        days=args.days,
        out=args.out,
        now=datetime.now(UTC),
    )
    _tell(f"issued {args.dir / issued.name}.crt for {issued.common_name} ({issued.usage})")
    _tell(f"serial {issued.serial:x}, ends on {issued.not_valid_after:%Y-%m-%d}")
    _tell(f"fingerprint {issued.fingerprint}")
    return EX_OK


def _shown(args: argparse.Namespace, request: SigningRequest) -> list[str]:
    asked = "no common name" if request.common_name is None else request.common_name
    days = authority.LEAF_DAYS if args.days is None else args.days
    names = f", names {', '.join(args.san)}" if args.san else ""
    return [
        f"{args.file} asks for: {asked}",
        f"key sha256:{key_hash(request.public_key)}",
        f"would be signed: a {args.usage}'s certificate for {days} days{names}, and no CA's",
        *(f"left out: {what}" for what in request.left_out),
    ]


def _answer(prompt: str) -> str:
    sys.stdout.write(render.visible(prompt))
    sys.stdout.flush()
    return sys.stdin.readline().strip()


def _tell(line: str) -> None:
    sys.stdout.write(render.visible(line) + "\n")
