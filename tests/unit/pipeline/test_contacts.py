"""Where people are reached, and whom an address belongs to."""

from dataclasses import replace
from pathlib import Path

import pytest

from host_agent.pipeline.contacts import Contacts
from host_agent.requests.notification import Contact, Failure
from tests.support.audit_files import NOW
from tests.support.people import ALICE, CHANNELS, ERIN, PEOPLE, STRANGER
from tests.support.pipeline import configuration

UNWRITTEN = """
[[approvers]]
owner = "Carol"
channels = ["signal", "webhook"]
"""


def book(directory: Path, *contacts: Contact, people: str = PEOPLE + UNWRITTEN) -> Contacts:
    return Contacts.of(configuration(directory, people=people), contacts)


def met(owner: str = "carol", address: str = STRANGER, **more: Failure) -> Contact:
    contact = Contact(owner=owner, channel="signal", address=address, since=NOW)
    return replace(contact, **more)  # type: ignore[arg-type]


def test_people_are_reached_in_the_order_of_the_file(tmp_path: Path) -> None:
    made = book(tmp_path)
    assert made.channels_of("ALICE") == ("signal", "ntfy")
    assert made.channels_of("erin") == ("signal", "webhook")
    assert made.address("alice", "signal") == ALICE
    assert made.address("alice", "ntfy") == "alices-long-random-topic"
    assert made.address("erin", "webhook") == "webhook"
    assert made.owner_at("signal", ERIN) == "erin"
    entry = made.entry("aLiCe")
    assert entry is not None
    assert entry.acts_for == "alice"


def test_who_is_not_in_the_file_is_reached_nowhere(tmp_path: Path) -> None:
    made = book(tmp_path, met("mallory"))
    assert made.entry("mallory") is None
    assert made.channels_of("mallory") == ()
    assert made.owner_at("signal", STRANGER) is None
    assert Contacts().channels_of("alice") == ()


def test_an_enrolled_address_counts_where_the_file_has_none(tmp_path: Path) -> None:
    assert book(tmp_path).channels_of("carol") == ("webhook",)
    made = book(tmp_path, met())
    assert made.channels_of("carol") == ("signal", "webhook")
    assert made.owner_at("signal", STRANGER) == "carol"


def test_a_key_in_the_file_wins_over_an_enrolled_one(tmp_path: Path) -> None:
    made = book(tmp_path, met("alice"))
    assert made.address("alice", "signal") == ALICE
    assert made.owner_at("signal", STRANGER) is None


def test_an_address_of_the_file_is_nobody_elses(tmp_path: Path) -> None:
    made = book(tmp_path, met("carol", ALICE))
    assert made.owner_at("signal", ALICE) == "alice"
    assert made.address("carol", "signal") is None


@pytest.mark.parametrize("owner", ["carol", "alice"])
def test_a_disabled_address_is_neither_sent_to_nor_believed(tmp_path: Path, owner: str) -> None:
    address = ALICE if owner == "alice" else STRANGER
    made = book(tmp_path, met(owner, address, disabled=Failure.IDENTITY_CHANGED))
    assert made.address(owner, "signal") is None
    assert made.owner_at("signal", address) is None
    assert "signal" not in made.channels_of(owner)


def test_only_what_proves_its_senders_says_who_they_are(tmp_path: Path) -> None:
    made = book(tmp_path)
    assert made.owner_at("webhook", "webhook") is None
    assert made.owner_at("ntfy", "alices-long-random-topic") is None
    assert made.owner_at("ntfy", ALICE) is None


def test_a_channel_that_is_not_configured_reaches_nobody(tmp_path: Path) -> None:
    whole = configuration(tmp_path, people=PEOPLE)
    without = whole.model_copy(
        update={"channels": whole.channels.model_copy(update={"signal": None})}
    )
    made = Contacts.of(without)
    assert made.channels_of("alice") == ("ntfy",)
    assert made.owner_at("signal", ALICE) is None
    assert Contacts.of(configuration(tmp_path, people=CHANNELS)).entries == {}
