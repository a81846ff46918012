"""The agent's letter box: what it has room for, and what makes room."""

import os
from pathlib import Path

import pytest

from host_agent.api.body import RenewalBody
from host_agent.pki import authority, mailbox
from host_agent.pki.mailbox import FORGOTTEN_SECONDS, Mailbox, MailboxFullError
from host_agent.pki.renewal import CONTEXT
from tests.unit.pki.test_signing import BEGAN, content, entry, issued


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    directory = tmp_path / "pki"
    authority.init(directory, now=BEGAN)
    for name in ("deployer", "alice", "erin"):
        issued(directory, name)
    return directory


def test_there_is_room_for_so_many_and_what_waited_too_long_makes_room(
    tmp_path: Path, ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox, "MAX_WAITING", 2)
    box = Mailbox(inbox=tmp_path / "inbox", issued=tmp_path / "issued")
    for name in ("deployer", "alice"):
        waiting = entry(ca, name)
        box.require_room(waiting.renewal())
        box.put(waiting.renewal(), waiting)
    erins = entry(ca, "erin").renewal()
    before = content(box.inbox)
    with pytest.raises(MailboxFullError):
        box.require_room(erins)
    box.require_room(waiting.renewal())  # that one waits already
    assert content(box.inbox) == before

    (oldest, *_) = sorted(box.inbox.iterdir())
    began = oldest.stat().st_mtime - FORGOTTEN_SECONDS - 60
    os.utime(oldest, (began, began))
    monkeypatch.setattr(mailbox, "MAX_WAITING", 3)  # it goes without anybody's need of its place
    box.require_room(erins)
    assert content(box.inbox) == {name: before[name] for name in before if name != oldest.name}


def test_the_description_of_a_proof_names_what_is_signed() -> None:
    told = RenewalBody.model_fields["proof"].description or ""
    assert f"`{CONTEXT.decode().removesuffix(chr(10))}`" in told
