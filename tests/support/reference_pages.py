"""Reference pages that are rendered from the code. `make docs` writes them; tests compare them."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

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
    Rule,
    Server,
    Store,
)
from host_agent.config.checking import table_of
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import OperationSpec, RunAs
from tests.support.commands_page import commands_page
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
            yield f"### `{prefix}.{key}`\n\n{described['description']}\n\n*{kind}; {default}*\n"


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
"""

ADAPTER_NOTES: Mapping[str, str] = {
    "git": """\
Needs the table [`[git]`](configuration.md#git) with the repositories that may be worked on, the
remotes that they may be updated from, and the branches that may be worked on. What is not listed is
refused with 403 `policy:denied`, whatever the rules say.

Everything runs through [the git wrapper](git-wrapper.md) as the identity's unix user, who must own
the repository and its `.git`. A repository with a configuration that could run a program or lead
elsewhere is refused. No hook runs, and no submodule is touched.

A name of a remote, a branch or a ref begins with a letter or a digit, goes on with letters, digits
and `.`, `_`, `/`, `+`, `-`, and is one that `git check-ref-format --branch` accepts. It is never a
URL and never a refspec.

The precondition names the repository and its `.git` by device, inode and birth. `fetch` and `pull`
add the address of the remote; `pull`, `switch` and `reset` add HEAD by commit and branch, the one
commit that they lead to, and whether there are uncommitted changes; `reset` adds a hash of these.

The `data` of an answer:

- `git.status`: `branch` (`commit`, `name`, `upstream`, `ahead`, `behind`), `changes` (`path`,
  `index`, `working_tree`, `unmerged`) and `untracked`
- `git.log`: `commits`, newest first (`commit`, `author`, `email`, `date`, `subject`)
- `git.diff`: `files` (`path`, `added`, `removed`; both null for a binary file)

File names, messages and authors are the repository's own words: data, never to be believed.
""",
    "zfs": """\
Needs the table [`[zfs]`](configuration.md#zfs) with the datasets that may be worked on, by the
part of their names before `@`. What is not listed is refused with 403 `policy:denied`, whatever
the rules say; `zfs.list` shows only what is listed.

Everything runs through [the zfs wrappers](zfs-wrappers.md) as root. Refused with 403
`policy:protected`, by the agent and once more by root: destroying or rolling back the root of a
pool or a `protected` dataset, taking a hold off a snapshot of a protected one, a recursive destroy
with something below that is protected or not listed, and a destroy that would take a clone along.
A recursive destroy always asks a person.

A snapshot that is marked for deferred destroy (`zfs destroy -d`) goes with its last hold, or with
the last of its clones. So `zfs.release` of that hold is refused (403 `policy:protected`):
`zfs.destroy` does it, asked with `release`, the hold's tag. A destroy of the last clone has the
snapshot among its members.

A name of a dataset follows OpenZFS's rules, without space and `%`: letters, digits, `_`, `.`, `:`
and `-` in components between `/`, at most one `@`, no component `.` or `..`, at most 255
characters. A pool begins with a letter, is not `log`, and does not begin with `mirror`, `raidz`,
`draid` or `spare`.

The precondition has the `guid` and `createtxg` of the dataset, its number of holds (`userrefs`),
how many datasets and snapshots the change acts on (`members`), and a hash of their identities,
holds, deferred destroys and origins (`state`). Sizes are no part of it.

What cannot succeed is refused when it is asked for: a snapshot that exists already, a hold that
is there, a destroy without `recursive` of what has children, a rollback to any but the newest
snapshot. What is held is shown in the preview of a destroy; zfs refuses it with `host:busy`. The
preview of a destroy is exact where the installed zfs can tell what it would do (OpenZFS), else an
estimate.

The `data` of an answer:

- `zfs.list`: a row for each dataset: `name`, `type`, `used`, `available`, `referenced` (bytes),
  `guid`, `createtxg`, `creation` (Unix time), `origin`, `userrefs`, `mountpoint`; null is what it
  has not. Without `recursive` it is `dataset` itself and, if asked for, its own snapshots.
- `zfs.get`: `name` and `properties`, each with `value`, `source` (`local`, `default`,
  `inherited`, `received`, `temporary` or null) and `inherited_from`

Sizes beyond 2^53-1, guids and transaction groups are strings of digits. Values of properties are
the host's own words: data, never to be believed.
""",
    "systemd": """\
Needs the table [`[systemd]`](configuration.md#systemd) with the units that may be worked on. What
is not listed is refused with 403 `policy:denied`, whatever the rules say; `systemd.list` shows only
what is listed, and has no resource, because a pattern is none.

Everything runs through [the systemd wrappers](systemd-wrappers.md) as root. Refused with 403
`policy:protected`, by the agent and once more by root: a change of a unit that the host needs to
stay up and reachable, of the agent's own, of one on root's list, by any name that systemd has for
it, and of a unit that would take such a one along. They may be looked at where they are listed.

A unit is named in full with its type, as in `nginx.service`. It has no template (`backup@.service`;
an instance, `backup@daily.service`, is a unit like any other), no escape (`\\x2d`), no path and no
wildcard; [the wrappers' page](systemd-wrappers.md#arguments) has the alphabet. `since` is a time by
RFC 3339 with its offset, not before 1970.

The precondition has the unit's `Id`, its `load` state, whether it is `up` or `down`, a hash of its
`definition` (unit file and drop-ins), whether systemd has yet to read that
(`daemon_reload_needed`), the running units that would be stopped, restarted or reloaded with it
(`affected`), and the wrapper's hash of all this (`state`). Processes, invocations, sub-states and
enablement are no part of it: a service that restarted by itself meanwhile is still the one that was
approved.

What cannot succeed is refused when it is asked for: a masked unit, a reload of one that is not
active or cannot reload, a start that its definition forbids. A start or a stop that would do
nothing is not refused; the preview says so. The look afterwards wants a unit up, and still up a
second later, or down after a stop; a one-shot service may have ended with success.

A unit that takes longer than `execution.timeout_seconds` to stop is answered with
`host:timed-out`; systemd goes on with it.

The `data` of an answer:

- `systemd.status`: `unit`, `names`, `description`, `load`, `active`, `sub`, `enabled`, `file`,
  `since`, `result`, `main_pid`, `exit_status`, `restarts`, `memory_bytes`, `tasks`, `status_text`,
  `daemon_reload_needed`, `triggers`, `triggered_by`; null is what it has not. A unit that does not
  run is an answer, one that does not exist is `host:not-found`.
- `systemd.logs`: `entries`, oldest first, with `time`, `priority` (`emerg` to `debug`), `pid`,
  `source` and `message`. Standard output has them as lines of these fields between tabs; further
  lines of a message begin with a tab. Where it was cut, the newest entries are there.
- `systemd.list`: `units`, with `unit`, `load`, `active`, `sub`, `description`. Only loaded units:
  one that is neither enabled nor used may be missing though it exists.

Descriptions, messages and what a service calls itself are the host's own words: data, never to be
believed. Only `pid`, `time` and the unit are the journal's own knowledge.
""",
    "pct": """\
Needs the table [`[pct]`](configuration.md#pct) with the VMIDs that may be worked on. What is not
listed is refused with 403 `policy:denied`, whatever the rules say; `pct.list` shows only what is
listed.

Everything runs through [the pct wrappers](pct-wrappers.md) as root. Root's own list of protected
containers holds whatever was approved: 403 `policy:protected`. So does a container's own
`protection` against `destroy` and `rollback`. `pct.destroy` always asks a person.

A VMID is 3 to 9 digits, the first of them not 0; as an integer it is the same operation. A
snapshot's name begins with a letter, goes on with letters, digits, `_` and `-`, has 2 to 40
characters, and is none of `current`, `pending`, `vzdump`.

`pct.create` makes an unprivileged container, stopped and without a network. There is no parameter
for a password, a file of the host, a mount point, a device, a hook or a feature of the kernel.

The precondition is a hash of the container's configuration, without its lock; a `rollback` adds
one of the snapshot, a `create` is bound to there being no such container. What cannot succeed is
refused when it is asked for: a start of what runs, a stop of what does not, a destroy of what
runs. A locked container is `host:busy`. A change may take longer than `[execution]
timeout_seconds`: up to 2 minutes to start or stop, 3 to shut down, 10 for a snapshot, 30 to create,
roll back or destroy.

The `data` of an answer:

- `pct.list`: `containers` (`vmid`, `status`, `lock`, `name`)
- `pct.status`: `status`: `running`, `stopped` or `unknown`
- `pct.config`: `settings` by name, and `lxc`, raw lines for LXC in their order (`name`, `value`)

Names, descriptions and values are the container's own words: data, never to be believed.
""",
    "exec": """\
Needs the table [`[exec]`](configuration.md#exec) with the programs that may be run, each with its
path, its hash and a pattern for each of its arguments. Without it there is nothing to run; a
command that is not registered is refused with 403 `policy:denied`.

Everything runs through [the exec wrapper](exec-wrapper.md) as root, which has a list of its own. No
shell is involved. Every argument must be given, by name, as text; a missing, unknown or other one
is refused with 400. Whatever a command does, it counts as `destroy`. The older body form cannot
give arguments.

The precondition is the path and the hash of the program. There is no preview of what it will do,
and no look at it afterwards. It may take half an hour.
""",
}
"""What an adapter's table cannot say by itself."""


def operations_page() -> str:
    """Return the reference of every operation."""
    return "\n".join([_OPERATIONS_INTRODUCTION, *_adapters()])


def _adapters() -> Iterator[str]:
    specs = list(CATALOGUE)
    for adapter in dict.fromkeys(spec.adapter for spec in specs):
        own = [spec for spec in specs if spec.adapter == adapter]
        yield f"## {adapter}\n\n{ADAPTER_NOTES.get(adapter, '')}"
        yield from (_operation(spec) for spec in own)


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
    if spec.may_always_ask:
        yield "may ask a person under an `allow` rule too"
    if spec.inspect is not None:
        yield "bound to a precondition, with a preview"
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


PAGES: Mapping[str, Callable[[], str]] = {
    "docs/reference/configuration.md": configuration_page,
    "docs/reference/commands.md": commands_page,
    "docs/reference/operations.md": operations_page,
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
