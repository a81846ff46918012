"""Approving over Matrix through the whole agent: once, and only by who was asked, where they were.

The agent is real, and so is what it does; the homeserver is a stand-in.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from host_agent.agent.build_channels import make_channels
from host_agent.clock import SystemClock
from host_agent.config import load
from host_agent.host.doctor.channels import channel_checks
from host_agent.host.doctor.values import CheckState
from tests.support.matrix_homeserver import AGENT, ALICE, BOB, ERIN, TOKEN, Homeserver
from tests.support.patience import PATIENCE
from tests.support.site import RULES, Served, Site, make_site
from tests.support.visit import POLL_SECONDS, Visitors, require_whole, until, visited

ROOM, ERINS, BOBS, TEAM = "!alice:h.example", "!erin:h.example", "!bob:h.example", "!team:h.example"
OTHER_CODE = "9876-5432-9876-5432"


@pytest.fixture
def home() -> Iterator[Homeserver]:
    with Homeserver() as started:
        for room, *people in ((ROOM, ALICE), (ERINS, ERIN), (BOBS, BOB), (TEAM, ALICE, ERIN)):
            started.server.make(room, AGENT, *people)
        yield started


@pytest.fixture
def site(tmp_path: Path, home: Homeserver) -> Site:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    approvers = "".join(
        f'\n[[approvers]]\nowner = "{owner}"\nmatrix = "{user}"\nchannels = ["matrix"]\n'
        for owner, user in (("bob", BOB), ("erin", ERIN))
    )
    return make_site(
        tmp_path / "site",
        rules=RULES.replace('["git.pull", "git.switch"]\nverdict = "ask"',
                            '["git.pull", "git.switch"]\nverdict = "ask"\n'
                            'approvers = ["alice", "bob"]'),
        extra=f"""
[channels.matrix]
url = "{home.url}"
user = "{AGENT}"
token_file = "{token}"
domains = ["home.example"]
trusts_local_users = true
[[approvers]]
owner = "alice"
channels = ["matrix"]
{approvers}
""",
    )  # fmt: skip


class Chat:
    """What the people write, and what they are written."""

    def __init__(self, home: Homeserver) -> None:
        self._home = home
        self._read = 0

    async def code(self) -> str:
        """Return the next message that is nothing but what approves."""
        await until(lambda: any(self._is_code(text) for text in self._new()), "a code")
        at = next(place for place, text in enumerate(self._new()) if self._is_code(text))
        text = self._new()[at]
        self._read += at + 1
        return text

    async def says(self, words: str) -> str:
        """Return the next message that has these words in it."""
        await until(lambda: any(words in text for text in self._new()), words)
        at = next(place for place, text in enumerate(self._new()) if words in text)
        text = self._new()[at]
        self._read += at + 1
        return text

    def _new(self) -> list[str]:
        return self._home.server.texts()[self._read :]

    @staticmethod
    def _is_code(text: str) -> bool:
        return text.startswith("CONFIRM ")


@pytest.fixture
def chat(home: Homeserver) -> Chat:
    return Chat(home)


async def enrolled(people: Visitors, home: Homeserver, chat: Chat) -> None:
    """Let alice enrol from her own room."""
    await until(lambda: home.server.asked.count("GET /v3/sync") > 1, "listening")
    offered = await people.who("root-admin").post(
        "/approvers/alice/enrol", json={"channel": "matrix"}
    )
    assert offered.status_code == 200, offered.text
    home.server.write(ROOM, ALICE, f"ENROL {offered.json()['code']}")
    await chat.says("This address now answers for alice.")


def started(site: Site) -> list[dict[str, Any]]:
    return [r for r in site.records() if r["event"] == "operation.started"]


async def test_who_enrolled_approves_with_the_code_and_it_runs_once(
    site: Site, home: Homeserver, chat: Chat
) -> None:
    async with visited(site) as people:
        await enrolled(people, home, chat)
        held = await people.held()
        code = await chat.code()
        assert {room for room, event in home.server.sent if event["content"]["body"] == code} == {
            ROOM
        }
        assert not started(site)
        home.server.write(ROOM, ALICE, code)
        await chat.says("Approved: git.pull")
        done = await people.ended(held)
        assert (done["state"], done["outcome"]["verified"]) == ("succeeded", True)
        await chat.says("Done on")
        home.server.write(ROOM, ALICE, code)
        await chat.says("Already decided")
    assert len(started(site)) == 1
    decided = next(r for r in site.records() if r["event"] == "request.decided")
    assert (decided["channel"], decided["approver_owner"]) == ("matrix", "alice")


@dataclass
class Others:
    """Answers that must not count. Each method returns once the agent has read its one."""

    home: Homeserver
    chat: Chat
    code: str
    prompt: str

    async def another_user(self) -> None:
        self.home.server.write(ERINS, ERIN, self.code)
        await self.chat.says("made for somebody else")

    async def the_requesters_owner(self) -> None:
        self.home.server.write(BOBS, BOB, self.code)
        await self.chat.says("made for somebody else")

    async def another_room(self) -> None:
        self.home.server.write(TEAM, ALICE, self.code)
        await self.chat.says("there are others in this room")

    async def a_wrong_code(self) -> None:
        self.home.server.write(ROOM, ALICE, f"CONFIRM {OTHER_CODE}")
        await self.chat.says("that code is not known")

    async def an_edit(self) -> None:
        first = self.home.server.write(ROOM, ALICE, "hello")
        relation = {"rel_type": "m.replace", "event_id": first}
        new = {"msgtype": "m.text", "body": self.code}
        more = {"m.new_content": new, "m.relates_to": relation}
        self.home.server.write(ROOM, ALICE, f"* {self.code}", **more)
        self.home.server.write(ROOM, ALICE, "yes")
        await self.chat.says("that word alone decides nothing")

    async def an_encrypted_event(self) -> None:
        self.home.server.put(ROOM, ALICE, {"ciphertext": self.code}, kind="m.room.encrypted")
        await self.chat.says("this room is encrypted")

    async def a_reaction(self) -> None:
        self.home.server.react(ROOM, ALICE, self.prompt, "\N{THUMBS UP SIGN}")
        await self.chat.says("a thumb is no yes")


OTHERS = (
    *(Others.another_user, Others.the_requesters_owner, Others.another_room),
    *(Others.a_wrong_code, Others.an_edit, Others.an_encrypted_event, Others.a_reaction),
)


async def test_an_answer_of_another_kind_moves_nothing(
    site: Site, home: Homeserver, chat: Chat
) -> None:
    before = site.repository.head
    async with visited(site) as people:
        await enrolled(people, home, chat)
        held = await people.held()
        code = await chat.code()
        prompt = home.server.sent[-2][1]
        others = Others(home, chat, code, prompt["event_id"])
        for answer in OTHERS:
            await answer(others)
            assert (await people.look(held)).json()["state"] == "pending"
        assert site.repository.head == before
        assert not started(site)
        assert "request.decided" not in site.events()
        home.server.write(ROOM, ALICE, code)
        await chat.says("Approved: git.pull")
        assert (await people.ended(held))["state"] == "succeeded"
    assert len(started(site)) == 1


async def test_the_same_event_twice_is_one_answer(site: Site, home: Homeserver, chat: Chat) -> None:
    async with visited(site) as people:
        await enrolled(people, home, chat)
        await people.held()
        event = home.server.write(ROOM, ALICE, await chat.code())
        await chat.says("Done on")
        home.server.put(ROOM, ALICE, {"msgtype": "m.text", "body": "yes"}, event_id=event)
        home.server.write(ROOM, ALICE, "no")
        await chat.says("that word alone decides nothing")
        assert sum("alone decides nothing" in text for text in home.server.texts()) == 1
    assert len(started(site)) == 1


@pytest.mark.parametrize("way", ["a reply", "a reaction"])
async def test_a_denial_by_a_reply_or_a_reaction_runs_nothing(
    site: Site, home: Homeserver, chat: Chat, way: str
) -> None:
    before = site.repository.head
    async with visited(site) as people:
        await enrolled(people, home, chat)
        held = await people.held()
        await chat.code()
        prompt = home.server.sent[-2][1]["event_id"]
        if way == "a reply":
            answers = {"m.relates_to": {"m.in_reply_to": {"event_id": prompt}}}
            home.server.write(ROOM, ALICE, "DENY not today", **answers)
        else:
            home.server.react(ROOM, ALICE, prompt, "\N{THUMBS DOWN SIGN}")
        await chat.says("Denied: git.pull")
        assert (await people.look(held)).json()["state"] == "denied"
    assert site.repository.head == before
    assert not started(site)


async def test_a_token_that_ended_is_seen_from_outside_and_a_new_one_delivers(
    site: Site, home: Homeserver, chat: Chat, tmp_path: Path
) -> None:
    async with visited(site) as people:
        await enrolled(people, home, chat)
        home.server.tokens.clear()
        held = await people.held()
        async with httpx.AsyncClient(base_url=people.agent.metrics_address) as monitor:
            retried = 'host_agent_notifications_total{channel="matrix",result="retried"} '
            async with asyncio.timeout(PATIENCE):
                while f"{retried}0.0" in (await monitor.get("/metrics")).text:
                    await asyncio.sleep(POLL_SECONDS)
        (seen, *_) = await asyncio.to_thread(
            lambda: list(channel_checks(load(site.config_path), make_channels))
        )
        assert seen.state is CheckState.PROBLEM
        assert "M_UNKNOWN_TOKEN" in seen.sentence
        assert (await people.look(held)).json()["state"] == "pending"
        home.server.tokens["syt_new"] = AGENT
        (tmp_path / "token").write_text("syt_new")
        home.server.write(ROOM, ALICE, await chat.code())
        await chat.says("Done on")
    assert len(started(site)) == 1


class Ahead(SystemClock):
    """A clock that a test puts ahead."""

    by = timedelta()

    def now(self) -> datetime:
        return super().now() + self.by

    def wall(self) -> datetime:
        return super().wall() + self.by


async def test_a_code_of_what_expired_runs_nothing(
    site: Site, home: Homeserver, chat: Chat
) -> None:
    before, clock = site.repository.head, Ahead()
    async with visited(site, clock=clock) as people:
        await enrolled(people, home, chat)
        held = await people.held()
        code = await chat.code()
        clock.by = timedelta(hours=2)
        home.server.write(ROOM, ALICE, code)
        await chat.says("expired")
        assert (await people.look(held)).json()["state"] == "expired"
    assert site.repository.head == before
    assert not started(site)


async def delivered(people: Visitors, held: dict[str, Any]) -> None:
    """Wait until it is stored that the prompt was taken: else a restart sends another code."""
    async with asyncio.timeout(PATIENCE):
        while True:
            seen = (await people.look(held, by="alice")).json()
            if [one["state"] for one in seen["deliveries"]].count("delivered"):
                return


@contextmanager
def served(site: Site) -> Iterator[Served]:
    with Served(site) as running:
        yield running
    require_whole(site)


async def test_killed_between_prompt_and_answer_it_runs_once_after_the_restart(
    site: Site, home: Homeserver, chat: Chat
) -> None:
    with served(site) as agent:
        async with Visitors(site, agent.url) as people:
            await enrolled(people, home, chat)
            held = await people.held()
            code = await chat.code()
            await delivered(people, held)
        agent.kill()
        home.server.write(TEAM, ALICE, code)
        home.server.write(ROOM, ALICE, code)
        assert not started(site)
        agent.start()
        async with Visitors(site, agent.url) as people:
            done = await people.ended(held)
            assert (done["state"], done["outcome"]["verified"]) == ("succeeded", True)
            await chat.says("Done on")
        agent.kill()
        agent.start()
        async with Visitors(site, agent.url) as people:
            syncs = home.server.asked.count("GET /v3/sync")
            await until(lambda: home.server.asked.count("GET /v3/sync") > syncs + 1)
            assert (await people.look(held)).json()["state"] == "succeeded"
    assert len(started(site)) == 1


async def test_while_the_homeserver_is_away_a_terminal_decides(site: Site, tmp_path: Path) -> None:
    with Homeserver() as gone:
        url = gone.url
    config = site.config_path.read_text()
    site.config_path.write_text(
        "\n".join(f'url = "{url}"' if line.startswith('url = "http://127') else line
                  for line in config.split("\n"))
    )  # fmt: skip
    async with visited(site) as people:
        held = await people.held()
        assert (await people.decide(held)).json()["state"] in {"approved", "running", "succeeded"}
        assert (await people.ended(held))["state"] == "succeeded"
    assert len(started(site)) == 1
