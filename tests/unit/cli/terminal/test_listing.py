"""What waits comes first, what destroys before all; nothing that matters is cut."""

from datetime import UTC, datetime, timedelta
from typing import Any

from host_agent.cli.terminal import listing
from host_agent.client import RequestView
from tests.support import answers

NOW = datetime(2026, 11, 20, 21, 30, tzinfo=UTC)


def view(number: int, **members: Any) -> RequestView:
    late = (NOW + timedelta(minutes=number)).isoformat()
    given = {"request_id": f"{number:08x}" + "0" * 24, "expires_at": late, **members}
    return RequestView.parse(answers.view(**given))


def drawn(*views: RequestView, width: int | None = 80) -> list[str]:
    return [line.plain for line in listing.lines(views, width=width, now=NOW)]


def test_what_destroys_comes_first_then_what_ends_soonest_then_what_has_ended() -> None:
    views = [
        view(1, effect="change"),
        view(9, state="succeeded", effect="destroy"),
        view(3, effect="destroy"),
        view(2, effect="destroy"),
        view(8, state="denied"),
        view(4, effect="read"),
        view(5, effect="change"),
    ]
    order = [int(found.request_id[:8], 16) for found in listing.ordered(views)]
    assert order == [2, 3, 1, 5, 4, 9, 8]


def test_operation_and_resource_are_whole_and_lines_fit_80_columns() -> None:
    long = "tank/media/and/more@2026-11-01-00-00"
    lines = drawn(
        view(1, operation="systemd.restart", resource="nginx.service", reason="x" * 300),
        view(2, operation="zfs.destroy", resource=long, effect="destroy", caller="c" * 60),
    )
    assert all(len(line) <= 80 for line in lines)
    assert " systemd.restart " in lines[1]
    assert f"! zfs.destroy    {long}" in lines[2]
    assert not any(line.endswith(" ") for line in lines)


def test_reason_then_caller_then_time_give_way_to_the_resource() -> None:
    wide = "tank/" + "a" * 38
    heading = drawn(view(1, resource=wide), width=80)[0]
    assert heading.split() == ["REQUEST", "STATE", "OPERATION", "RESOURCE", "LEFT"]
    wider = "tank/" + "a" * 200
    (_, line) = drawn(view(1, resource=wider), width=80)
    assert wider in line


def test_a_list_says_which_host_it_is_of() -> None:
    views = [view(1, host="web-2"), view(2, host="web-2", state="denied")]
    assert listing.headline(views) == "web-2  1 pending"
    hostile = listing.headline([view(1, host="a\x1b[2J\nb")])
    assert "\x1b" not in hostile
    assert "\n" not in hostile


def test_effects_have_colours_only_while_they_wait() -> None:
    views = [view(1, effect="destroy"), view(2, effect="destroy", state="denied")]
    (_, waits, ended) = listing.lines(views, width=80, now=NOW)
    assert (str(waits.style), str(ended.style)) == ("bold red", "")
