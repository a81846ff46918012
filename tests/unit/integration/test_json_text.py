"""What is put into JSON text comes out again, and every other byte stays."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.integration import json_text
from host_agent.integration.json_text import JsonTextError, Plain

ITEM: Plain = {"matcher": "Bash", "hooks": [{"command": "x"}]}
WHERE = ("hooks", "PreToolUse")

TEXTS = [
    "{}",
    "{}\n",
    "{\n}\n",
    "{ }",
    '{"a": 1}',
    '{"a": 1}\n',
    '{\n  "a": 1\n}\n',
    '{\n    "a": [1, 2],\n    "b": {"c": null}\n}\n',
    '{\n\t"a": 1\n}\n',
    '{\r\n  "a": 1\r\n}\r\n',
    '\ufeff{\n  "a": 1\n}\n',
    '{"hooks": {}}',
    '{"hooks": {"PreToolUse": []}}',
    '{"hooks": {"PreToolUse": [{"matcher": "Edit"}]}}',
    '{\n  "hooks": {\n    "PreToolUse": [\n      {"matcher": "Edit"}\n    ]\n  }\n}\n',
    (
        '{\n  "hooks": {\n    "PreToolUse": [\n      {\n        "matcher": "Edit"\n      }\n'
        '    ],\n    "Stop": []\n  },\n  "z": true\n}\n'
    ),
    '{\n  "hooks": {\n    "Stop": [{}]\n  }\n}',
    '{"a":{"b":1},"hooks":{"PreToolUse":[1,2]}}',
    '{"\\u0068ooks": {"PreToolUse": [1]}}',
]
JSON5 = [
    (
        "// mine\n{\n  // keep\n  hooks: {\n    PreToolUse: [\n      {matcher: 'Edit'}, // last\n"
        "    ],\n  },\n}\n"
    ),
    "{\n  /* a */ a: 1, /* b */\n}\n",
    "{ a: 'it\\'s', }",
    "{hooks: {/* none yet */}}",
    "{\n  hooks: {\n    PreToolUse: [ // all of them\n    ]\n  }\n}\n",
    "{a: .5, b: +1, c: Infinity, d: 0x1F,}",
]


@pytest.mark.parametrize("text", [*TEXTS, *JSON5])
def test_an_item_goes_in_and_comes_out(text: str) -> None:
    whole = json_text.append(text, WHERE, ITEM)
    items = json_text.parse(whole).at(*WHERE)
    assert items is not None
    assert items.items[-1].value() == ITEM
    again = json_text.cut(whole, WHERE, lambda value: value == ITEM)
    for path in (WHERE, WHERE[:1]):
        if json_text.parse(text).at(*path) is None:
            again = json_text.drop(again, path)
    assert json_text.parse(again).value() == json_text.parse(text).value()
    assert "".join(again.split()) == "".join(text.split())


@pytest.mark.parametrize("text", TEXTS)
def test_strict_json_stays_strict(text: str) -> None:
    whole = json_text.append(text, WHERE, ITEM)
    given_value = json.loads(text.removeprefix("\ufeff"))
    given_value.setdefault("hooks", {}).setdefault("PreToolUse", []).append(ITEM)
    assert json.loads(whole.removeprefix("\ufeff")) == given_value


def test_the_form_of_the_file_is_kept() -> None:
    text = '{\r\n\t"a": 1\r\n}\r\n'
    whole = json_text.put(text, ["b"], {"c": []})
    assert whole == '{\r\n\t"a": 1,\r\n\t"b": {\r\n\t\t"c": []\r\n\t}\r\n}\r\n'


def test_comments_and_other_items_stay_where_ours_is_cut_from_among_them() -> None:
    text = '{"l": [1, /* two */ 2, "x", // mine\n 3, "x"]}'
    assert json_text.cut(text, ["l"], lambda v: v == "x") == '{"l": [1, /* two */ 2, // mine\n 3]}'
    assert json_text.cut('["x"]', [], lambda v: v == "x") == "[]"
    assert json_text.cut('["x", 1]', [], lambda v: v == "x") == "[1]"
    assert json_text.cut("['x',]", [], lambda v: v == "x") == "[]"
    assert json_text.cut("[/* a */ 'x', 1]", [], lambda v: v == "x") == "[/* a */ 1]"
    assert json_text.drop('{"a": 1, "b": 2}', ["a"]) == '{"b": 2}'
    assert json_text.drop('{"a": 1, "b": 2}', ["c"]) == '{"a": 1, "b": 2}'
    assert json_text.drop('{"a": 1}', ["c", "d"]) == '{"a": 1}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[",
        '{"a"}',
        '{"a": }',
        "{a: 1 b: 2}",
        "[1 2]",
        "{} x",
        '{"a": "',
        "[" * 300,
        "{1: }",
    ],
)
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(JsonTextError):
        json_text.append(text, WHERE, ITEM)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "1",
        '{"hooks": 1}',
        '{"hooks": []}',
        '{"hooks": {"PreToolUse": {}}}',
        '{"hooks": {}, "hooks": {}}',
    ],
)
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(JsonTextError):
        json_text.append(text, WHERE, ITEM)


def test_a_member_that_is_there_is_not_put_again() -> None:
    with pytest.raises(JsonTextError):
        json_text.put('{"a": 1}', ["a"], 2)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.text(max_size=5), VALUES, max_size=5), st.sampled_from([None, 1, 2, "\t"])
)
def test_any_json_is_read_as_json_reads_it(value: dict[str, Plain], indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert json_text.parse(text).value() == value
    if "new" not in value:
        whole = json_text.put(text, ["new"], [1, {"a": "b"}])
        assert json.loads(whole) == value | {"new": [1, {"a": "b"}]}
        assert json_text.parse(json_text.drop(whole, ["new"])).value() == value


@given(st.text(max_size=40) | st.text(alphabet="{}[]\"',:/*\\\n ab1", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        json_text.parse(text)
    except JsonTextError:
        return
