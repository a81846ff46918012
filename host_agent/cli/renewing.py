"""`host-agent pki renew`: this client's certificate, renewed before it ends, once or for good."""

import argparse
import base64
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from host_agent.cli import connection_settings
from host_agent.cli.connection_settings import ConnectionSettings
from host_agent.cli.terminal import render
from host_agent.errors import (
    EX_CONFIG,
    EX_NOPERM,
    EX_OK,
    EX_TEMPFAIL,
    EX_UNAVAILABLE,
    CertificateRefusedError,
    ConfigurationError,
    ConnectionFailedError,
    InvalidAnswerError,
    InvalidIdentityError,
    ProblemError,
)
from host_agent.identity.files import read_linked
from host_agent.pki.renewal import prove
from host_agent.pki.replacement import ClientPair, PairPlace, fault_of

DUE_PART = 2 / 3
"""The part of its life after which a certificate is renewed."""
SPREAD = 0.05
"""By how much of its life that is put off at most, so that not everybody comes at once."""
WAITING_SECONDS = 600.0
"""Between two looks whether the authority has signed."""
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 60.0, 3600.0
LONGEST_SLEEP_SECONDS = 86_400.0
"""Also where it is not due for long: files and clock may have changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalStep:
    """How one attempt ended: an exit status, a sentence, and for how long there is nothing to do.

    `is_final` where no further attempt can do better.
    """

    status: int
    sentence: str
    seconds: float | None = None
    is_final: bool = False


def add_parser(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    run: Callable[[argparse.Namespace], int],
) -> None:
    """Add `renew` to the commands of `pki`, which `run` runs."""
    parser = verbs.add_parser(
        "renew",
        help="renew this client's certificate, once two thirds of its life are over",
        description="Ask the agent for a certificate with a new key, by the one that is still good,"
        " and put both in the place of the old ones, once the agent lets the new one in. Exit"
        " status 75: the authority has not signed yet; ask again later.",
    )
    parser.add_argument(
        "--daemon", action="store_true", help="stay, and renew each time that it is due"
    )
    connection_settings.add_arguments(parser)
    parser.set_defaults(run=run, command=_renew)


def _renew(args: argparse.Namespace) -> int:
    spread = random.SystemRandom().uniform(0, SPREAD) if args.daemon else 0.0

    def step() -> RenewalStep:
        settings = connection_settings.read(args, os.environ, Path.home())
        return attempt(settings, now=datetime.now(UTC), due_part=DUE_PART + spread)

    if args.daemon:
        return keep(lasting(step), _tell, time.sleep, random.SystemRandom().uniform)
    done = step()
    _tell(done)
    return done.status


def lasting(step: Callable[[], RenewalStep]) -> Callable[[], RenewalStep]:
    """Return `step` for a program that stays: once it has worked, a bad file or a full disk passes.

    What is wrong from the first is told at once, by the error itself.
    """
    has_worked = False

    def taken() -> RenewalStep:
        nonlocal has_worked
        try:
            done = step()
        except (ConfigurationError, InvalidIdentityError) as error:
            if not has_worked:
                raise
            faults = error.faults if isinstance(error, ConfigurationError) else [error.detail]
            return RenewalStep(status=EX_CONFIG, sentence="; ".join(faults))
        has_worked = True
        return done

    return taken


def keep(
    step: Callable[[], RenewalStep],
    tell: Callable[[RenewalStep], None],
    sleep: Callable[[float], None],
    uniform: Callable[[float, float], float],
) -> int:
    """Take steps until one is final, and return its exit status.

    What fails is tried again after a minute, then twice as long each time, up to an hour; every
    pause is up to a quarter longer or shorter.
    """
    retry, said = FIRST_RETRY_SECONDS, ""
    while True:
        done = step()
        if done.sentence != said:
            tell(done)
            said = done.sentence
        if done.is_final:
            return done.status
        pause = done.seconds
        if pause is None:
            pause, retry = retry, min(2 * retry, LONGEST_RETRY_SECONDS)
        else:
            retry = FIRST_RETRY_SECONDS
        sleep(min(pause, LONGEST_SLEEP_SECONDS) * uniform(0.75, 1.25))


def attempt(
    settings: ConnectionSettings, *, now: datetime, due_part: float = DUE_PART
) -> RenewalStep:
    """Renew if it is due, as far as that goes now.

    Raises:
        ConfigurationError: the files cannot be used or replaced; the old ones are still there.
        InvalidIdentityError: the certificate is none that an identity has.
    """
    place = PairPlace.of(settings.cert, settings.key)
    with place.alone():
        return _attempt(settings, place, now=now, due_part=due_part)


def _attempt(
    settings: ConnectionSettings, place: PairPlace, *, now: datetime, due_part: float
) -> RenewalStep:
    place.recover()
    pair = place.read()
    own = pair.certificate
    due = own.not_valid_before + (own.not_valid_after - own.not_valid_before) * due_part
    if now < due:
        sentence = f"{own.common_name} is not due before {_instant(due)}"
        return RenewalStep(status=EX_OK, sentence=sentence, seconds=(due - now).total_seconds())
    try:
        return _exchange(settings, place, pair)
    except CertificateRefusedError:
        sentence = (
            f"the host does not let {own.common_name} in any more: its certificate has ended, is"
            " revoked, or is of another authority; take a new one from the administrator"
        )
        return RenewalStep(status=EX_NOPERM, sentence=sentence, is_final=True)
    except ProblemError as error:
        is_final = 400 <= error.status < 500 and error.status not in (408, 429)
        status = EX_NOPERM if is_final else EX_UNAVAILABLE
        sentence = f"not renewed: {error.detail} ({error.code})"
        return RenewalStep(status=status, sentence=sentence, is_final=is_final)
    except (ConnectionFailedError, InvalidAnswerError) as error:
        return RenewalStep(status=EX_UNAVAILABLE, sentence=f"not renewed: {error}")


def _exchange(settings: ConnectionSettings, place: PairPlace, pair: ClientPair) -> RenewalStep:
    from host_agent.client import Client
    from host_agent.client.renewal import renewal

    own = pair.certificate
    waiting = place.next_key(own)
    request = x509.load_pem_x509_csr(waiting.request)
    proof = prove(pair.key, certificate_der=own.der, request_der=request.public_bytes(Encoding.DER))
    told = (waiting.request.decode("ascii"), base64.b64encode(proof).decode("ascii"))
    with Client(url=settings.url, cert=settings.cert, key=settings.key, ca=settings.ca) as client:
        answer = client.administer(renewal(*told))
    if answer.certificate is None:
        sentence = f"{own.common_name} waits for the authority; the old certificate serves on"
        return RenewalStep(status=EX_TEMPFAIL, sentence=sentence, seconds=WAITING_SECONDS)
    pem = answer.certificate.encode()
    believed = read_linked(settings.ca)
    if (fault := fault_of(pem, waiting.key, own, believed)) is not None:
        message = f"the certificate that came is not used: {fault}"
        raise InvalidAnswerError(message)
    staged = place.stage(pem, waiting.key)
    try:
        with Client(url=settings.url, cert=staged.cert, key=staged.key, ca=settings.ca) as client:
            client.whoami()  # the agent lets the new one in, or the old one stays
    except (CertificateRefusedError, ProblemError) as error:
        place.discard()
        sentence = f"the host does not let the new certificate in, and the old one serves: {error}"
        return RenewalStep(status=EX_NOPERM, sentence=sentence)
    except BaseException:
        place.discard()
        raise
    place.commit()
    ends = place.read().certificate.not_valid_after
    life = ends - datetime.now(UTC)
    return RenewalStep(
        status=EX_OK,
        sentence=f"{own.common_name} is renewed, until {_instant(ends)}",
        seconds=max(life * DUE_PART, timedelta(0)).total_seconds(),
    )


def _instant(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _tell(step: RenewalStep) -> None:
    if step.status in (EX_OK, EX_TEMPFAIL):
        sys.stdout.write(render.visible(step.sentence) + "\n")
        sys.stdout.flush()
    else:
        render.warn(render.visible(step.sentence))
