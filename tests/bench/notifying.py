"""Other callers' throughput while 100 requests are put before three approvers on two channels.

Held against the same agent and the same asks without channels. The receivers are processes of their
own on this machine, so what they take is taken from the agent too.
"""

import contextlib
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.bench.exchange import Exchange
from tests.bench.ground import LIMITS, RULES, Setting, callers, identities
from tests.bench.load import closed_loop
from tests.bench.running import IN_FLIGHT
from tests.bench.table import Row, at_least
from tests.support.site import ROOT, Served

REQUESTS = 100
ROUNDS = 3
SLICE_SECONDS = 8.0
GOAL_SHARE = 0.95
APPROVERS = ("alice", "erin", "frank")
FIRST_PROMPTS = 10
"""What each approver gets on a channel at once; the others wait for `prompts_per_minute`."""
_SECRET = "bench-" + "0" * 32


def figures(setting: Setting) -> list[Row]:
    """Return the row: the share of throughput that is left while people are told."""
    place = setting.site.directory / "channels"
    place.mkdir(mode=0o700)
    wishes = itertools.count()
    pairs: list[tuple[float, float]] = []
    with _receivers(place) as channels:
        for _ in range(ROUNDS):
            plain = _rate(setting, "", wishes)
            pairs.append((plain, _rate(setting, channels, wishes)))
    told = len((place / "got").read_bytes().splitlines())
    if told < ROUNDS * len(APPROVERS) * FIRST_PROMPTS:
        message = f"only {told} webhooks came: nothing was measured"
        raise RuntimeError(message)
    setting.site.configure(rules=RULES, identities=identities(None), extra=LIMITS, branches=_ALL)
    share = median(telling / plain for plain, telling in pairs)
    return [
        at_least(
            f"git.status, {IN_FLIGHT} clients, while {REQUESTS} requests go to"
            f" {len(APPROVERS)} approvers on 2 channels",
            share,
            GOAL_SHARE,
            measured=f"{share:.2f} ({median(telling for _, telling in pairs):,.0f}/s)",
            against=f"without channels {median(plain for plain, _ in pairs):,.0f}/s",
        )
    ]


_ALL = ("main", "topic", "work/[0-9]+")


def _rate(setting: Setting, channels: str, wishes: Iterator[int]) -> float:
    setting.forget()
    people = identities(None) + "".join(
        f'[[identities]]\ncn = "{owner}-laptop"\nowner = "{owner}"\nroles = ["approver"]\n'
        for owner in APPROVERS[1:]
    )
    extra = LIMITS + "escalate_seconds = 5\ncommand_line = true\n" + channels
    setting.site.configure(rules=RULES, identities=people, extra=extra, branches=_ALL)
    with (
        Served(setting.site) as served,
        callers(served, setting.context, IN_FLIGHT + 1) as connections,
    ):
        asker, *readers = connections
        request = readers[0].ask("git.status", setting.site.status())
        acts = [lambda one=one: one.send(request, 200) for one in readers]
        closed_loop(acts, 0.5)
        asking = threading.Thread(target=_ask, args=(asker, setting, wishes))
        asking.start()
        rate = closed_loop(acts, SLICE_SECONDS).rate
        asking.join()
    return rate


def _ask(connection: Exchange, setting: Setting, wishes: Iterator[int]) -> None:
    for _ in range(REQUESTS):
        connection.send(connection.ask("git.switch", setting.switch(next(wishes))), 202)


@contextlib.contextmanager
def _receivers(place: Path) -> Iterator[str]:
    """Start a webhook receiver and an ntfy server; yield the configuration that uses them."""
    secret = place / "secret"
    secret.write_text(_SECRET)
    secret.chmod(0o600)
    with contextlib.ExitStack() as exits:
        hook = exits.enter_context(_program("webhook_receiver.py", "--record", place / "got"))
        ntfy = exits.enter_context(_program("ntfy_server.py"))
        entries = "".join(
            f'[[approvers]]\nowner = "{owner}"\nntfy_topic = "topic-of-{owner}-for-the-bench"\n'
            'channels = ["webhook", "ntfy"]\n'
            for owner in APPROVERS
        )
        yield (
            f'[channels.webhook]\nurl = "{hook}"\nsecret_file = "{secret}"\n'
            f'[channels.ntfy]\nurl = "{ntfy}"\n{entries}'
        )


@contextlib.contextmanager
def _program(name: str, *arguments: object) -> Iterator[str]:
    command = [sys.executable, str(ROOT / "tests" / "support" / name), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None:
            message = f"{name} has no output"
            raise RuntimeError(message)
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
