"""GET /events over the real door: live, replayed, and ended."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from host_agent.client import Client
from tests.support.patience import PATIENCE
from tests.support.site import Served, Site, make_site

SECONDS = PATIENCE


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


@pytest.fixture
def served(site: Site) -> Iterator[Served]:
    with Served(site) as served:
        yield served


def read(lines: Iterator[str]) -> dict[str, str]:
    """Return the next event of a stream; comments are passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line and fields:
            return fields
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
    return fields


def ask(site: Site, served: Served, cn: str = "deployer") -> dict[str, Any]:
    with site.http(served.url, cn) as client:
        answer = client.post("/host/op", json={"operation": "git.pull", "params": site.pull()})
        assert answer.status_code == 202, answer.text
        body: dict[str, Any] = answer.json()
        return body


def test_what_happens_comes_as_it_is_written_and_can_be_read_again(
    site: Site, served: Served
) -> None:
    with site.http(served.url, "alice") as client:
        with client.stream("GET", "/events", timeout=SECONDS) as stream:
            assert stream.status_code == 200
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.iter_lines()
            held = ask(site, served)
            assert read(lines)["event"] == "operation.inspected"
            event = read(lines)
            assert event["event"] == "request.held"
            data = json.loads(event["data"])
            assert data["request_id"] == held["request_id"]
            assert str(data["sequence"]) == event["id"]
        before = {"Last-Event-ID": str(int(event["id"]) - 1)}
        with client.stream("GET", "/events", headers=before, timeout=SECONDS) as stream:
            assert read(stream.iter_lines())["id"] == event["id"]
        assert client.get("/health").status_code == 200


def test_a_caller_is_not_told_of_others(site: Site, served: Served) -> None:
    with (
        site.http(served.url, "watcher") as client,
        client.stream("GET", "/events", timeout=SECONDS) as stream,
    ):
        lines = stream.iter_lines()
        ask(site, served)
        with site.http(served.url, "watcher") as other:
            asked = {"operation": "git.status", "params": site.status()}
            assert other.post("/host/op", json=asked).status_code == 200
        event = read(lines)
        assert (event["event"], json.loads(event["data"])["caller"]) == (
            "operation.started",
            "watcher",
        )


@pytest.mark.parametrize("bad", ["-1", "x", "1.5", "9" * 16])
def test_an_id_that_is_none_is_refused(site: Site, served: Served, bad: str) -> None:
    with site.http(served.url, "alice") as client:
        answer = client.get("/events", headers={"Last-Event-ID": bad})
        assert (answer.status_code, answer.json()["code"]) == (400, "request:invalid-parameter")


def test_streams_are_few_and_come_free_when_a_reader_leaves(site: Site, served: Served) -> None:
    with site.http(served.url, "alice") as client:
        streams, readers = [], []
        for _ in range(4):
            stream = client.send(client.build_request("GET", "/events"), stream=True)
            streams.append(stream)
            readers.append(stream.iter_raw())  # one that is let go closes its stream
            next(readers[-1])
        answer = client.get("/events")
        assert (answer.status_code, answer.json()["code"]) == (429, "rate:limited")
        for stream in streams:
            stream.close()
        for _ in range(100):
            with client.stream("GET", "/events", timeout=SECONDS) as again:
                if again.status_code == 200:
                    return
        pytest.fail("a stream that was left is never free")


def test_a_stop_ends_streams_at_once(site: Site, served: Served) -> None:
    with site.http(served.url, "alice") as client:
        stream = client.send(client.build_request("GET", "/events"), stream=True)
        chunks = stream.iter_raw()
        next(chunks)
        assert served.stop() == 0
        with suppress(httpx.RemoteProtocolError):
            assert all(chunk.startswith(b":") for chunk in chunks)


def test_the_client_stays_with_it_over_a_restart(site: Site) -> None:
    states: list[bool] = []
    alice = site.client("alice")
    with (
        Served(site) as served,
        Client(
            url=served.url,
            cert=alice.certificate_path,
            key=alice.key_path,
            ca=site.pki.ca_path,
        ) as client,
    ):
        first = ask(site, served)["request_id"]
        events = client.events(after=0, on_state=states.append)
        assert next(events).name == "operation.inspected"
        seen = next(events)
        assert (seen.name, seen.data.body["request_id"]) == ("request.held", first)
        assert served.stop() == 0
        text = site.config_path.read_text()
        place = served.url.removeprefix("https://")
        site.config_path.write_text(text.replace('bind = "127.0.0.1:0"', f'bind = "{place}"', 1))
        with Served(site) as again:
            ask(site, again)  # the same again, and it may be there before the reader is
            assert next(events).name == "operation.inspected"
            found = next(events)
            assert (found.name, found.data.body["request_id"]) == ("request.attached", first)
        events.close()
    assert states[:3] == [True, False, True]
