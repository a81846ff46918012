"""cvtsudoers' JSON: mended where it is none, refused where it is not understood."""

import json

import pytest

from host_agent.sudoers.lines import LogicalLine, logical_lines
from host_agent.sudoers.parse import UnparsableError, mark, mended, parse
from host_agent.sudoers.values import Origin

LINES = list(logical_lines("/etc/sudoers", "# c\nDefaults>root !authenticate\na ALL=/x, \\\n /y\n"))
MARKED = mark(LINES, "nonce")


def spec(user: str, *commands: str) -> dict[str, object]:
    return {
        "User_List": [{"username": user}],
        "Host_List": [{"hostname": "ALL"}],
        "Cmnd_Specs": [{"Commands": [{"command": command} for command in commands]}],
    }


def test_every_line_but_blank_ones_has_its_marker_and_is_found_again() -> None:
    text = MARKED.text.split("\n")

    assert text[0] == "Defaults:line.nonce.1 !lecture"
    assert text[2] == "Defaults>root !authenticate"
    assert [MARKED.index(number) for number in (3, 6, 7)] == [1, 2, 2]


def test_entries_get_the_origin_of_the_line_between_the_markers() -> None:
    told = {
        "Defaults": [
            {"Binding": [{"username": "line.nonce.1"}], "Options": [{"lecture": False}]},
            {"Binding": [{"username": "root"}], "Options": [{"authenticate": False}]},
        ],
        "User_Specs": [spec("line.nonce.2", "/m"), spec("a", "/x", '/y ""')],
    }

    policy = parse(json.dumps(told), MARKED, LINES)

    assert [(s.scope, s.name, s.origin.line) for s in policy.settings] == [(">", "authenticate", 2)]
    (grant,) = policy.grants
    assert grant.origin.line == 3
    assert [(c.path, c.arguments) for c in grant.commands] == [("/x", None), ("/y", '""')]
    assert grant.run_as is None


def test_json_that_is_none_is_mended() -> None:
    broken = """{
    "User_List": [
    ]
    "Options": [
        "runchroot": "*",
        "runcwd": "/a",
        { "setenv": true }
    ],
    "SELinux_Spec": [
        "role": "a"
    ]
}"""

    told = json.loads(mended(broken))

    assert told["Options"] == [{"runchroot": "*"}, {"runcwd": "/a"}, {"setenv": True}]
    assert told["SELinux_Spec"] == {"role": "a"}


def aliased(users: list[dict[str, str]], *widths: int) -> str:
    """Return an entry for `users`, and aliases that each name the next one so many times."""
    aliases: dict[str, list[dict[str, str]]] = {
        f"A{number}": [{"useralias": f"A{number + 1}"}] * width
        for number, width in enumerate(widths, 1)
    }
    aliases[f"A{len(widths) + 1}"] = [{"username": "alice"}]
    entry = {**spec("alice", "/x"), "User_List": users}
    return json.dumps({"User_Aliases": aliases, "User_Specs": [spec("line.nonce.0", "/m"), entry]})


def test_an_alias_of_aliases_is_what_they_name() -> None:
    (grant,) = parse(aliased([{"useralias": "A1"}], 1, 2, 1), MARKED, LINES).grants

    assert [member.value for member in grant.users] == ["alice", "alice"]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"User_Specs": 5}',
        '{"User_Specs": [{}]}',
        json.dumps({"User_Specs": [spec("a", "/x")]}),
        json.dumps({"User_Specs": [spec("line.nonce.77", "/m"), spec("a", "/x")]}),
        json.dumps({"User_Specs": [spec("line.nonce.x", "/m"), spec("a", "/x")]}),
        aliased([{"useralias": "A1"}], *([2] * 40)),
        aliased([{"useralias": "A1"}], *([1] * 5000)),
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(UnparsableError):
        parse(text, MARKED, LINES)


ALICE = [{"username": "alice"}]


@pytest.mark.parametrize(
    ("text", "binding", "scopes", "is_doubtful"),
    [
        ("Defaults a", None, {""}, False),
        ("Defaults:alice a", ALICE, {":"}, False),
        (" Defaults>alice a", ALICE, {">"}, False),
        ("Defaults@box a", [{"hostname": "box"}], {"@"}, False),
        ("Defaults!/x a", [{"command": "/x"}], {"!"}, False),
        ("Defaults@+net a", [{"netgroup": "net"}], {"@"}, False),
        ("Defaults:NOBODY a", [], {""}, True),  # an alias that is not defined
        ("Defaults:alice a", None, {""}, True),
        ("alice ALL=ALL", None, {""}, True),
        ("Defaults a", ALICE, {":", ">"}, False),
        ("Defaults!/x a", [{"networkaddr": "10.0.0.0"}], {"@"}, False),
        ("Defaults:bob a \\\nDefaults>alice b", ALICE, {":", ">"}, False),
        ("Defaults a", [{"netgroup": "net"}], {":", ">", "@"}, False),
    ],
)
def test_for_whom_a_setting_is_comes_from_what_sudo_says(
    text: str, binding: list[dict[str, str]] | None, scopes: set[str], is_doubtful: bool
) -> None:
    lines = (LogicalLine(origin=Origin(file="/f", line=1), text=text),)
    entry: dict[str, object] = {"Options": [{"a": True}]}
    told = {
        "Defaults": [
            {"Binding": [{"username": "line.nonce.0"}], "Options": []},
            entry if binding is None else {**entry, "Binding": binding},
        ]
    }

    found = parse(json.dumps(told), mark(lines, "nonce"), lines)

    assert {setting.scope for setting in found.settings} == scopes
    assert found.doubts == ((lines[0].origin,) if is_doubtful else ())


def test_nothing_is_an_empty_policy() -> None:
    assert parse("", MARKED, LINES).grants == ()
