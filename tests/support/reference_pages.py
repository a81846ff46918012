"""Reference pages that are rendered from the code. `make docs` writes them; tests compare them."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from host_agent.api.openapi import document
from host_agent.config import (
    CHANNELS,
    Approvals,
    Approver,
    Audit,
    Bridge,
    Channels,
    Execution,
    IdentityEntry,
    LimitsSection,
    MetricsSection,
    RenewalsSection,
    Rule,
    Server,
    Store,
)
from host_agent.config.checking import table_of
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import OperationSpec, RunAs
from tests.support.commands_page import commands_page
from tests.support.pages import folded
from tests.support.prompt_cases import why_not
from tests.support.prompts_page import prompts_page
from tests.support.sudoers_example import sudoers_example

REPOSITORY = Path(__file__).resolve().parents[2]


def _adapters_tables() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the headings and models of every adapter's table, and of the tables within it."""
    for adapter in CATALOGUE.adapters:
        yield f"[{adapter.name}]", adapter.section
        yield from _tables_within(adapter.name, adapter.section)


def _tables_within(at: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for key, field in model.model_fields.items():
        if (within := table_of(field.annotation)) is not None:
            yield f"[[{at}.{key}]]", within
            yield from _tables_within(f"{at}.{key}", within)


CONFIGURATION_TABLES: Mapping[str, type[BaseModel]] = {
    "[server]": Server,
    "[limits]": LimitsSection,
    "[store]": Store,
    "[audit]": Audit,
    "[metrics]": MetricsSection,
    "[renewals]": RenewalsSection,
    "[execution]": Execution,
    "[approvals]": Approvals,
    "[channels]": Channels,
    **{f"[channels.{name}]": declared for name, declared in CHANNELS.items()},
    "[[approvers]]": Approver,
    "[[bridges]]": Bridge,
    "[[identities]]": IdentityEntry,
    "[[rules]]": Rule,
    **dict(_adapters_tables()),
}
"""Every table of the configuration, in the order of the page."""

_CONFIGURATION_INTRODUCTION = """\
# Configuration

This page is rendered from the models in `host_agent/config/`; `make docs` writes it anew.

The agent reads one TOML file, `/etc/host-agent/config.toml` unless `--config` names another, and
then `conf.d/*.toml` beside it, in name order. Across files, tables merge and arrays of tables
append; a key that two files give is a fault. A file is at most 1 MiB, a regular file and no
symbolic link. Relative paths start at the directory of the main file.

Unknown keys, values of another type, expressions that do not compile, and files or users that do
not exist are faults: the agent does not start, ends with status 78, and names every fault by its
dotted key, as in `rules[2].operations[0]: is no operation, and no adapter with .* after it`. A
reload with faults keeps the configuration that serves. `host-agent config check` does the same
checks, then shows what each identity may do, and what is unwise.

## How rules decide

1. An identity with autonomy `read_only` is refused every operation that is not a read.
2. Built-in protections and the adapter's allow-lists refuse what they do not cover.
3. The rules are tried in order. The first one that matches the operation, the resource and the
   identity decides. Names are compared exactly, and a regular expression must match the whole
   resource. An operation without a resource matches only rules without `resources`.
4. No match denies.

An `ask` becomes an allow only for an identity with autonomy `full` and `skip_ask`, and only where
the rule has no `always_ask`. Operations that always ask need one approval under an `allow` rule
too, and are denied under `deny` or no rule.

Expressions hold at most 256 characters. Python's engine may take very long over a repeat of a
repeat, such as `(a+)+`; `config check` warns of those that it recognises.

## Permissions

Checked at start, as the agent's user:

- The private key, the store with its directory, the audit log, and the files with secrets of
  channels and bridges belong to root or the agent's user, and give nothing to group or others.
- The configuration, `conf.d`, the client authority and the wrappers belong to root or the agent's
  user, and are not writable by group or others. Under runner `direct`, wrappers may be writable by
  their group.
- The same holds for every directory above these; a sticky directory of root, such as `/tmp`, is
  accepted.
"""


def configuration_page() -> str:
    """Return the reference of every configuration key."""
    return "\n".join([_CONFIGURATION_INTRODUCTION, *_configuration_tables()])


def _configuration_tables() -> Iterator[str]:
    for heading, model in CONFIGURATION_TABLES.items():
        yield f"## `{heading}`\n\n{(model.__doc__ or '').strip()}\n"
        prefix = heading.strip("[]")
        schema = model.model_json_schema()
        required = set(schema.get("required", ()))
        for key, described in schema["properties"].items():
            if f"{prefix}.{key}" in {name.strip("[]") for name in CONFIGURATION_TABLES}:
                continue
            is_required = key in required
            kind = _kind(described, schema.get("$defs", {}))
            default = "required" if is_required else _default(described)
            meaning = folded(described["description"])
            yield f"### `{prefix}.{key}`\n\n{meaning}\n\n*{kind}; {default}*\n"


def _kind(described: Mapping[str, Any], shared: Mapping[str, Any]) -> str:
    """Return the type of one key in words."""
    if "$ref" in described:
        return _kind(shared[described["$ref"].rpartition("/")[2]], shared)
    if "anyOf" in described:
        kinds = [_kind(one, shared) for one in described["anyOf"] if one.get("type") != "null"]
        return " or ".join(kinds)
    if "enum" in described:
        return "one of " + ", ".join(f"`{value}`" for value in described["enum"])
    if described.get("type") == "array":
        return f"array: {_kind(described['items'], shared)}"
    if described.get("format") == "path":
        return "path"
    return str(described["type"]) + _bounds(described)


def _bounds(described: Mapping[str, Any]) -> str:
    if "exclusiveMinimum" in described:
        return f" over {described['exclusiveMinimum']:g}, at most {described['maximum']:.0f}"
    if "minimum" in described:
        return f" from {described['minimum']:.0f} to {described['maximum']:.0f}"
    return f" of at most {described['maxLength']} characters" if "maxLength" in described else ""


def _default(described: Mapping[str, Any]) -> str:
    value = described.get("default")
    if value is None:
        return "left out by default"
    shown = str(value).lower() if isinstance(value, bool) else value
    if isinstance(value, list):
        shown = "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return f"default `{shown}`"


# -- operations ------------------------------------------------------------------------------------

_OPERATIONS_INTRODUCTION = """\
# Operations

This page is rendered from the catalogue in `host_agent/operations/`; `make docs` writes it anew.
`GET /host/operations` and `host-agent operations` tell the same, with the verdict for whoever asks.

An operation is asked for by name, with parameters of exact names and JSON types; an unknown
parameter, a missing one, or a value outside its grammar is refused with 400. All text is ASCII, and
no parameter begins with `-`. The first parameter is the resource, as rules see it. The order of the
parameters is the order in which `args` of the older body form fill them.

- A **read** changes nothing. Reads run side by side.
- A **change** can be undone or made again. A **destroy** loses something. Both run one at a time
  for a resource, and both are bound to the state that the agent found when they were asked for:
  the *precondition*. It is part of the digest, and it is read again right before the run.

What does not exist on the host (a branch, a remote, a repository) is answered with 404
`host:not-found` when it is asked for; it is never held.

An operation that *may be `unchanged`* is answered so at once, and nobody is asked, where it would
be put before people and there is exactly nothing to do. Nothing runs then.
"""


def operations_page() -> str:
    """Return the reference of every operation."""
    return "\n".join([_OPERATIONS_INTRODUCTION, *_adapters()])


def _adapters() -> Iterator[str]:
    specs = list(CATALOGUE)
    for adapter in dict.fromkeys(spec.adapter for spec in specs):
        own = [spec for spec in specs if spec.adapter == adapter]
        yield f"## {adapter}\n\n{_notes(adapter)}"
        yield from (_operation(spec) for spec in own)


def _notes(adapter: str) -> str:
    """Return what an adapter's table cannot say by itself: the page beside its declaration."""
    folder = REPOSITORY / "host_agent" / "operations" / adapter
    return (folder / "notes.md").read_text(encoding="utf-8")


def _operation(spec: OperationSpec) -> str:
    lines = [f"### `{spec.name}`", "", spec.summary, "", f"*{'; '.join(_facts(spec))}*", ""]
    lines += ["| parameter | type | default | |", "| --- | --- | --- | --- |"]
    schema = spec.parameters.model_json_schema()
    for name in spec.parameters.positional:
        described = schema["properties"][name]
        default = (
            "required" if name in schema.get("required", ()) else _parameter_default(described)
        )
        kind = _kind(described, schema.get("$defs", {}))
        lines.append(f"| `{name}` | {kind} | {default} | {_description(described)} |")
    return "\n".join([*lines, ""])


def _facts(spec: OperationSpec) -> Iterator[str]:
    yield spec.effect.value
    yield "runs as root" if spec.run_as is RunAs.ROOT else "runs as the identity's unix user"
    if spec.asks_always == (True,):
        yield "always asks a person"
    elif True in spec.asks_always:
        yield "may ask a person under an `allow` rule too"
    if spec.inspect is not None:
        yield "bound to a precondition, with a preview"
    if spec.may_be_done_already:
        yield "may be `unchanged`"
    if spec.probe is not None:
        yield "looked at afterwards: `verified` is true or false"


def _parameter_default(described: Mapping[str, Any]) -> str:
    value = described.get("default")
    if value is None:
        return "left out"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _description(described: Mapping[str, Any]) -> str:
    options = (described, *described.get("anyOf", ()))
    return next((str(one["description"]) for one in options if "description" in one), "")


def openapi_document() -> str:
    """Return the OpenAPI document, as GET /openapi.json answers it but for the spaces."""
    return json.dumps(document(CATALOGUE), indent=1, ensure_ascii=False) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "docs/reference/configuration.md": configuration_page,
    "docs/reference/commands.md": commands_page,
    "docs/reference/operations.md": operations_page,
    "docs/reference/openapi.json": openapi_document,
    "sudoers/host-agent": sudoers_example,
}
"""Every rendered page, and what renders it."""


def main() -> None:
    """Write every page; that of prompts where the runs that it shows can be made."""
    pages = dict(PAGES)
    if why_not() is None:
        pages["docs/explanation/prompts.md"] = prompts_page
    for name, render in pages.items():
        page = REPOSITORY / name
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
