"""JSON as text: a member or an item is put in or cut out, every other byte stays.

Comments, trailing commas, bare names and single quotes (JSON5) are read too, and kept.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"

_BLANK = re.compile(r"(?:[\s\ufeff]+|//[^\n\r]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', re.DOTALL)
_BARE = re.compile(r"[^\s,:\[\]{}\"'/]+")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|\r\n|.)", re.DOTALL)
_NAMED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0"}
_DEEPEST = 200


class JsonTextError(Exception):
    """The text is not JSON, or not of the form that an edit needs; the message says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A value of the text, from `begin` to before `end`.

    `members` are those of an object in order, a name with where it begins, and its value; `items`
    those of an array; `scalar` is what anything else stands for.
    """

    begin: int
    end: int
    kind: str
    scalar: Plain = None
    members: tuple[tuple[str, int, "Node"], ...] = ()
    items: tuple["Node", ...] = ()

    def value(self) -> Plain:
        """Return what the text stands for."""
        if self.kind == "object":
            return {name: node.value() for name, _, node in self.members}
        if self.kind == "array":
            return [node.value() for node in self.items]
        return self.scalar

    def at(self, *path: str) -> "Node | None":
        """Return the value at the end of a path of names; None where there is none.

        Raises:
            JsonTextError: a name on the way is there twice, or leads into no object.
        """
        node = self
        for name in path:
            if node.kind != "object":
                message = f"{name!a} is looked for in what is no object"
                raise JsonTextError(message)
            found = [one for key, _, one in node.members if key == name]
            if len(found) > 1:
                message = f"{name!a} is there twice"
                raise JsonTextError(message)
            if not found:
                return None
            node = found[0]
        return node


@dataclass(slots=True)
class _JsonReader:
    text: str
    place: int = 0
    depth: int = field(default=0)

    def skip(self) -> None:
        found = _BLANK.match(self.text, self.place)
        self.place = found.end() if found else self.place

    def fail(self) -> JsonTextError:
        line = self.text.count("\n", 0, self.place) + 1
        return JsonTextError(f"line {line} is not JSON")

    def sign(self) -> str:
        self.skip()
        return self.text[self.place : self.place + 1]

    def node(self) -> Node:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self.fail()
        sign = self.sign()
        node = self.container(sign) if sign in ("{", "[") else self.scalar()
        self.depth -= 1
        return node

    def container(self, sign: str) -> Node:
        begin = self.place
        self.place += 1
        members: list[tuple[str, int, Node]] = []
        items: list[Node] = []
        closing = "}" if sign == "{" else "]"
        while self.sign() != closing:
            if sign == "{":
                named = self.place
                name = self.name()
                if self.sign() != ":":
                    raise self.fail()
                self.place += 1
                members.append((name, named, self.node()))
            else:
                items.append(self.node())
            if self.sign() == ",":
                self.place += 1
            elif self.sign() != closing:
                raise self.fail()
        self.place += 1
        return Node(
            begin=begin,
            end=self.place,
            kind="object" if sign == "{" else "array",
            members=tuple(members),
            items=tuple(items),
        )

    def name(self) -> str:
        found = _STRING.match(self.text, self.place)
        if found is not None:
            self.place = found.end()
            return _unquoted(found[0])
        found = _BARE.match(self.text, self.place)
        if found is None:
            raise self.fail()
        self.place = found.end()
        return found[0]

    def scalar(self) -> Node:
        begin = self.place
        found = _STRING.match(self.text, begin)
        if found is not None:
            self.place = found.end()
            return Node(begin=begin, end=self.place, kind="scalar", scalar=_unquoted(found[0]))
        found = _BARE.match(self.text, begin)
        if found is None:
            raise self.fail()
        self.place = found.end()
        return Node(begin=begin, end=self.place, kind="scalar", scalar=_bare(found[0]))


def parse(text: str) -> Node:
    """Return the one value of `text`.

    Raises:
        JsonTextError: it is none.
    """
    reader = _JsonReader(text)
    node = reader.node()
    if reader.sign():
        raise reader.fail()
    return node


def put(text: str, path: Sequence[str], value: Plain) -> str:
    """Return `text` with `value` as the last member at `path`, which must not be there.

    Objects on the way that are missing are made.

    Raises:
        JsonTextError: the text is not JSON, or it is there.
    """
    root = parse(text)
    for length in range(len(path) - 1, -1, -1):
        holder = root.at(*path[:length])
        if holder is not None:
            break
    if holder is None or holder.kind != "object" or length == len(path):
        message = f"{'.'.join(path[:length])} is no object"
        raise JsonTextError(message)
    if holder.at(path[length]) is not None:
        message = f"{'.'.join(path)} is there already"
        raise JsonTextError(message)
    for name in reversed(path[length + 1 :]):
        value = {name: value}
    key = json.dumps(path[length])
    return _inserted(text, holder, lambda indent: f"{key}: {_shown(text, value, indent)}")


def append(text: str, path: Sequence[str], value: Plain) -> str:
    """Return `text` with `value` as the last item of the array at `path`, which is made if missing.

    Raises:
        JsonTextError: the text is not JSON, or there is something else.
    """
    holder = parse(text).at(*path)
    if holder is None:
        return put(text, path, [value])
    if holder.kind != "array":
        message = f"{'.'.join(path)} is no array"
        raise JsonTextError(message)
    return _inserted(text, holder, lambda indent: _shown(text, value, indent))


def cut(text: str, path: Sequence[str], is_meant: Callable[[Plain], bool]) -> str:
    """Return `text` without the items of the array, or the members of the object, at `path`.

    Those go whose value `is_meant` is true of.

    Raises:
        JsonTextError: the text is not JSON.
    """
    while True:
        holder = parse(text).at(*path)
        if holder is None or holder.kind == "scalar":
            return text
        spans = _spans(holder)
        values = [*(node for _, _, node in holder.members), *holder.items]
        chosen = [n for n, node in enumerate(values) if is_meant(node.value())]
        if not chosen:
            return text
        text = _without(text, holder, spans, chosen[-1])


def drop(text: str, path: Sequence[str]) -> str:
    """Return `text` without the member at `path`, if it is there.

    Raises:
        JsonTextError: the text is not JSON.
    """
    holder = parse(text).at(*path[:-1])
    if holder is None or holder.kind != "object" or holder.at(path[-1]) is None:
        return text
    number = [name for name, _, _ in holder.members].index(path[-1])
    return _without(text, holder, _spans(holder), number)


def _spans(holder: Node) -> list[tuple[int, int]]:
    members = [(begin, node.end) for _, begin, node in holder.members]
    return [*members, *((node.begin, node.end) for node in holder.items)]


def _without(text: str, holder: Node, spans: Sequence[tuple[int, int]], number: int) -> str:
    """Cut one span with the comma and the blanks that came with it; comments stay."""
    begin, end = spans[number]
    after = _comma(text, end, holder.end - 1)
    if number:
        comma = _comma(text, spans[number - 1][1], begin)
        between = text[comma:begin]
        if not between.strip():
            if after == end:  # the last, without a comma of its own: the comma before it goes
                gap = text[spans[number - 1][1] : comma]
                kept = gap.removesuffix(",")
                return text[: spans[number - 1][1]] + kept + text[end:]
            return text[:comma] + text[after:]
        return text[:begin] + text[after:]
    if len(spans) == 1 and not text[holder.begin + 1 : begin].strip():
        rest = text[after : holder.end - 1]
        return (
            text[: holder.begin + 1] + ("" if not rest.strip() else rest) + text[holder.end - 1 :]
        )
    if len(spans) > 1:
        blanks = len(text[after:]) - len(text[after:].lstrip())
        return text[:begin] + text[after + blanks :]
    return text[:begin] + text[after:]


def _comma(text: str, begin: int, limit: int) -> int:
    """Return the place after the comma that follows `begin`, or `begin` where there is none."""
    found = _BLANK.match(text, begin)
    place = found.end() if found else begin
    return place + 1 if place < limit and text[place] == "," else begin


def _inserted(text: str, holder: Node, shown: Callable[[str], str]) -> str:
    """Put the last member or item in; `shown` gives its text for an indent."""
    newline = "\r\n" if "\r\n" in text else "\n"
    spans = _spans(holder)
    outer = _indent(text, holder.begin)
    if not spans:
        inside = text[holder.begin + 1 : holder.end - 1]
        indent = outer + _unit(text)
        tail = inside.rstrip() if inside.strip() else ""
        piece = f"{tail}{newline}{indent}{shown(indent)}{newline}{outer}"
        return text[: holder.begin + 1] + piece + text[holder.end - 1 :]
    begin, end = spans[-1]
    comma = _comma(text, end, holder.end - 1)
    is_alone = not text[text.rfind("\n", 0, begin) + 1 : begin].strip()
    indent = _indent(text, begin)
    lead = f"{newline}{indent}" if is_alone else " "
    piece = f"{lead}{shown(indent if is_alone else outer)}"
    if comma != end:
        return f"{text[:comma]}{piece},{text[comma:]}"
    return f"{text[:end]},{piece}{text[end:]}"


def _indent(text: str, place: int) -> str:
    line = text[text.rfind("\n", 0, place) + 1 : place]
    return line[: len(line) - len(line.lstrip())]


def _unit(text: str) -> str:
    """Return what one level is indented by, as the first indented line has it."""
    found = re.search(r"^([ \t]+)\S", text, re.MULTILINE)
    return found[1] if found else "  "


def _shown(text: str, value: Plain, indent: str) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = json.dumps(value, indent=_unit(text), ensure_ascii=False).split("\n")
    return f"{newline}{indent}".join(lines)


def _unquoted(text: str) -> str:
    if text.startswith('"'):
        try:
            return str(json.loads(text, strict=False))
        except ValueError:
            pass
    return _ESCAPE.sub(_unescaped, text[1:-1])


def _unescaped(found: "re.Match[str]") -> str:
    sign = found[1]
    if sign[0] in "ux" and len(sign) > 1:
        return chr(int(sign[1:], 16))
    return "" if sign in ("\n", "\r", "\r\n") else _NAMED.get(sign, sign)


def _bare(text: str) -> Plain:
    try:
        value: Plain = json.loads(text)
    except ValueError:
        return text
    return value
