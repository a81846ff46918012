"""`host-agent pki bundle`: what was issued to somebody, as the one file that `login` takes."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from host_agent.cli.terminal import render
from host_agent.client.bundle import HOST_NAME, MAX_URLS, Bundle, BundleError, is_url
from host_agent.errors import EX_OK, ConfigurationError
from host_agent.identity import files


def add_parser(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    run: Callable[[argparse.Namespace], int],
) -> None:
    """Add `bundle` to the commands of `pki`, which `run` runs."""
    parser = verbs.add_parser(
        "bundle",
        help="write what was issued to somebody as the one file that `login` takes",
        description="Write certificate, key, CA and the addresses of a host into one file, 0600,"
        " for `host-agent login`. It holds a private key: hand it to that person alone, and delete"
        " the key here.",
    )
    parser.add_argument("--dir", required=True, type=Path, help="the directory of the CA")
    parser.add_argument("--cn", required=True, help="whom it is for, the common name")
    parser.add_argument(
        "--host", required=True, type=_host, metavar="NAME", help="what the host calls itself"
    )
    parser.add_argument(
        "--url",
        required=True,
        action="append",
        type=_url,
        help=f"where the agent listens, https://HOST:PORT; up to {MAX_URLS}, the best one first",
    )
    parser.add_argument(
        "--name", metavar="NAME", help="the files are NAME.crt and NAME.key; default: the CN"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: CN.bundle in this directory"
    )
    parser.set_defaults(run=run, command=_write)


def _write(args: argparse.Namespace) -> int:
    """Write the bundle and return the exit status.

    Raises:
        ValueError: a file of the authority cannot be read.
        ConfigurationError: they do not belong together, or the bundle cannot be written.
    """
    stem = args.name or args.cn
    certificate, key, ca = (
        files.read_plain(args.dir / name).decode("ascii", "replace")
        for name in (f"{stem}.crt", f"{stem}.key", "ca.crt")
    )
    bundle = Bundle(
        host=args.host,
        cn=args.cn,
        urls=tuple(dict.fromkeys(args.url)),
        certificate=certificate,
        private_key=key,
        ca=ca,
    )
    out = Path(f"{args.cn}.bundle") if args.out is None else args.out
    try:
        bundle.check(datetime.now(UTC))
        files.create(out, bundle.encode(), mode=files.PRIVATE)
    except BundleError as error:
        raise ConfigurationError([f"{args.dir / stem}: {error}."]) from error
    except OSError as error:
        raise ConfigurationError([f"{out}: {error.strerror}."]) from error
    wrote = f"wrote {out} for {args.cn} on {args.host}: it holds a private key"
    left = f"delete {args.dir / stem}.key here: it is in the bundle"
    for line in (wrote, left):
        sys.stdout.write(f"{render.visible(line)}\n")
    return EX_OK


def _host(text: str) -> str:
    if HOST_NAME.fullmatch(text):
        return text
    message = f"{text!a} is not what a host calls itself"
    raise argparse.ArgumentTypeError(message)


def _url(text: str) -> str:
    if is_url(text):
        return text
    message = f"{text!a} is not https://HOST:PORT"
    raise argparse.ArgumentTypeError(message)
