"""The zfs adapter's declarations and pure functions; no process is started here."""

import hashlib
import json

import pytest

from host_agent.canonical import JsonValue, canonical_json
from host_agent.errors import (
    AdapterUnavailableError,
    HostAgentError,
    HostBusyError,
    HostFailedError,
    HostNotFoundError,
    HostTimedOutError,
    InvalidOutputError,
    InvalidParameterError,
    PolicyDeniedError,
    ProtectedError,
    TargetChangedError,
)
from host_agent.operations.catalogue import (
    Catalogue,
    Effect,
    Inspection,
    Operation,
    OperationSpec,
    Output,
    PreviewAccuracy,
    RunAs,
)
from host_agent.operations.zfs.adapter import ADAPTER, SPECS
from host_agent.operations.zfs.output import LIST_FIELDS, DatasetFacts
from host_agent.operations.zfs.parameters import is_dataset, is_snapshot_name
from host_agent.operations.zfs.preview import size
from host_agent.operations.zfs.section import ZfsSection

CATALOGUE = Catalogue((ADAPTER,))
GOOD: dict[str, dict[str, JsonValue]] = {
    "zfs.list": {"dataset": "tank/media", "types": ["snapshot"], "recursive": True},
    "zfs.get": {"dataset": "tank/media", "properties": ["used", "org.example:owner"]},
    "zfs.snapshot": {"dataset": "tank/media", "name": "daily-2026-11-20"},
    "zfs.hold": {"dataset": "tank/media@old", "tag": "keep"},
    "zfs.release": {"dataset": "tank/media@old", "tag": "keep"},
    "zfs.destroy": {"dataset": "tank/media@old"},
    "zfs.rollback": {"dataset": "tank/media@old"},
}
SECTION = ZfsSection(datasets=("tank", "tank/media(/.*)?"), protected=("tank/media/keep(/.*)?",))
STATE = "a" * 64
HELD: dict[str, JsonValue] = {
    "guid": "17",
    "createtxg": "5",
    "userrefs": 1,
    "members": 1,
    "state": f"sha256:{STATE}",
}


def parse(name: str, /, **changed: JsonValue) -> Operation:
    return CATALOGUE.parse(name, {**GOOD[name], **changed})


def admit(asked: Operation, section: ZfsSection = SECTION) -> None:
    asked.spec.admit(asked.params, section)


def done(stdout: str = "", *, exit_code: int = 0, stderr: str = "") -> Output:
    return Output(exit_code=exit_code, stdout=stdout, stderr=stderr, stdout_bytes=len(stdout))


def facts(*more: str, **changed: object) -> Output:
    lines: dict[str, object] = {
        "guid": 17,
        "createtxg": 5,
        "userrefs": 0,
        "state": STATE,
        "members": 1,
        "held": 0,
        "deferred": "off",
        "is_last": "no",
        **changed,
    }
    told = [f"{name}\t{value}" for name, value in lines.items()]
    return done("".join(f"{line}\n" for line in (*told, *more)))


def inspected(asked: Operation, output: Output) -> Inspection:
    spec = asked.spec
    if spec.guard is not None:
        spec.guard(asked.params, SECTION, output)
    assert spec.parse_inspection is not None
    return spec.parse_inspection(asked.params, output)


# -- the table -------------------------------------------------------------------------------------


def test_effects_are_those_of_the_contract() -> None:
    assert {spec.name.removeprefix("zfs."): spec.effect for spec in SPECS} == {
        **dict.fromkeys(("list", "get"), Effect.READ),
        **dict.fromkeys(("snapshot", "hold", "release"), Effect.CHANGE),
        **dict.fromkeys(("destroy", "rollback"), Effect.DESTROY),
    }


def test_parameters_are_in_the_order_of_the_contract() -> None:
    assert {spec.name.removeprefix("zfs."): spec.parameters.positional for spec in SPECS} == {
        "list": ("dataset", "types", "recursive"),
        "get": ("dataset", "properties"),
        "snapshot": ("dataset", "name", "recursive"),
        "hold": ("dataset", "tag"),
        "release": ("dataset", "tag"),
        "destroy": ("dataset", "recursive", "release"),
        "rollback": ("dataset",),
    }


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_operation_runs_its_own_wrapper_as_root(spec: OperationSpec) -> None:
    asked = parse(spec.name)
    invocation = spec.invoke(asked.params, HELD)
    assert spec.run_as is invocation.run_as is RunAs.ROOT
    assert spec.wrapper == invocation.wrapper == spec.name.replace(".", "-")
    assert asked.resource == GOOD[spec.name]["dataset"]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_only_changes_are_inspected_and_all_are_probed(spec: OperationSpec) -> None:
    is_read = spec.effect is Effect.READ
    assert (spec.inspect is None) == (spec.probe is None) == is_read
    assert (spec.parse is None) == (not is_read)


def test_a_snapshot_waits_for_the_turn_of_its_dataset() -> None:
    assert parse("zfs.destroy").turn == parse("zfs.snapshot").turn == "tank/media"


def test_only_a_recursive_destroy_always_asks() -> None:
    for name in GOOD:
        asked = parse(name)
        assert not asked.spec.always_asks(asked.params)
    recursive = parse("zfs.destroy", dataset="tank/media", recursive=True)
    assert recursive.spec.always_asks(recursive.params)


@pytest.mark.parametrize("name", GOOD)
def test_parameters_have_a_canonical_form(name: str) -> None:
    assert canonical_json(parse(name).params.canonical())


def test_order_and_repeats_of_types_are_the_same_operation() -> None:
    one = parse("zfs.list", types=["volume", "filesystem", "volume"])
    other = parse("zfs.list", types=["filesystem", "volume"])
    assert one.params.canonical() == other.params.canonical()


def test_the_list_of_everything_has_no_resource() -> None:
    asked = CATALOGUE.parse("zfs.list", {})
    assert asked.resource is None
    assert asked.spec.invoke(asked.params, {}).arguments == ("one", "filesystem,volume")


# -- grammar ---------------------------------------------------------------------------------------

BAD_DATASETS = [
    *("", "/", "tank/", "/tank", "tank//a", "tank/a/", "@a", "tank@", "tank@a@b", "tank@a/b"),
    *("tank/../x", "tank/./x", "tank/..", "tank@..", "tank@.", "tank/a@../b", "tank#a", "tank/a#b"),
    *(
        "1tank",
        "-tank",
        ".tank",
        "_tank",
        "log",
        "log/a",
        "mirror",
        "mirror-1/a",
        "raidz2",
        "raidz",
    ),
    *("draid1/x", "spares/a", "tank/a b", "tank/a%b", "tank/%recv", "tank/a,b", "tank@a%b"),
    *("tank@a,b", "tank/a\n", "tank\n", "tank/a\0", "tank/a\t", "tank/*", "tank/?", "tank/[a]"),
    "a" * 256,
    "tank/" + "a" * 251,
]
DASHES = ["-r", "-R", "--root=/", "-o", "--upload-pack=x", "-oProxyCommand=x", "-H", "--", "-"]
SHELL = [
    "$(id)",
    "`id`",
    "a;id",
    "a|id",
    "a&id",
    "~root",
    "{a,b}",
    "a>b",
    "a[$(id)]",
    "${IFS}",
    "a'b",
]
LOOKALIKES = [
    *("t\u0430nk/data", "tank/\u202edata", "tank\uff0fdata", "tank/da\u200bta", "tank/dat\u0430"),
    *("tank/\u0661", "\uff54ank/data", "tank/\xe9"),
]


@pytest.mark.promise("c50")
@pytest.mark.parametrize("name", list(GOOD))
@pytest.mark.parametrize("text", BAD_DATASETS)
def test_a_dataset_outside_the_grammar_is_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidParameterError):
        parse(name, dataset=text)


@pytest.mark.promise("c20")
@pytest.mark.parametrize("text", DASHES)
def test_nothing_begins_with_a_dash(text: str) -> None:
    bad: list[tuple[str, str, JsonValue]] = [
        *((name, "dataset", text) for name in GOOD),
        *(("zfs.snapshot", "name", text), ("zfs.hold", "tag", text), ("zfs.release", "tag", text)),
        *(("zfs.get", "properties", [text]), ("zfs.list", "types", [text])),
    ]
    for name, parameter, value in bad:
        with pytest.raises(InvalidParameterError):
            parse(name, **{parameter: value})


@pytest.mark.promise("c21")
@pytest.mark.parametrize("text", SHELL)
def test_shell_metacharacters_are_refused_everywhere(text: str) -> None:
    for name in GOOD:
        with pytest.raises(InvalidParameterError):
            parse(name, dataset=f"tank/{text}")
    for name, parameter in (("zfs.snapshot", "name"), ("zfs.hold", "tag")):
        with pytest.raises(InvalidParameterError):
            parse(name, **{parameter: text})
    with pytest.raises(InvalidParameterError):
        parse("zfs.get", properties=[text])


@pytest.mark.promise("c30")
@pytest.mark.parametrize("text", LOOKALIKES)
def test_lookalikes_are_refused(text: str) -> None:
    for name in GOOD:
        with pytest.raises(InvalidParameterError):
            parse(name, dataset=text)


@pytest.mark.parametrize(
    "text",
    ["tank", "tank/a", "t/-x", "tank/a.b_c:d-e@x.y", "Tank9/..a", "a" * 255, "logs", "tank@-x"],
)
def test_names_of_openzfs_are_taken(text: str) -> None:
    assert is_dataset(text)


@pytest.mark.parametrize("text", ["a/b", "a@b", ".", "..", "-a", "a b", "", "a\n", "a%b"])
def test_a_name_of_a_snapshot_is_one_component(text: str) -> None:
    assert not is_snapshot_name(text)
    with pytest.raises(InvalidParameterError):
        parse("zfs.snapshot", name=text)


def test_a_snapshot_is_wanted_or_refused_where_the_operation_says() -> None:
    for name in ("zfs.hold", "zfs.release", "zfs.rollback"):
        with pytest.raises(InvalidParameterError):
            parse(name, dataset="tank/media")
    with pytest.raises(InvalidParameterError):
        parse("zfs.snapshot", dataset="tank/media@old")


def test_a_snapshot_with_too_long_a_name_is_refused() -> None:
    parse("zfs.snapshot", name="a" * (255 - len("tank/media@")))
    with pytest.raises(InvalidParameterError):
        parse("zfs.snapshot", name="a" * (256 - len("tank/media@")))


@pytest.mark.parametrize("tag", [".a", "", "a b", "a/b", "a" * 256, "a\n", "\xe9"])
def test_a_tag_outside_the_grammar_is_refused(tag: str) -> None:
    with pytest.raises(InvalidParameterError):
        parse("zfs.hold", tag=tag)
    with pytest.raises(InvalidParameterError):
        parse("zfs.destroy", dataset="tank/media@old", release=tag)


def test_a_hold_is_taken_off_one_snapshot_only() -> None:
    assert parse("zfs.destroy", dataset="tank/media@old", release="keep")
    for more in ({"dataset": "tank/media"}, {"dataset": "tank/media@old", "recursive": True}):
        with pytest.raises(InvalidParameterError):
            parse("zfs.destroy", release="keep", **more)


def test_no_hold_is_taken_off_what_is_protected_and_one_may_be_put_on() -> None:
    section = ZfsSection(datasets=("tank/.*",), protected=("tank/vault",))
    params = {"dataset": "tank/vault@old", "tag": "keep"}
    with pytest.raises(ProtectedError):
        admit(parse("zfs.release", **params), section)
    admit(parse("zfs.hold", **params), section)
    admit(parse("zfs.release", dataset="tank/media@old", tag="keep"), section)


@pytest.mark.parametrize(
    "properties", [[], ["a,b"], ["A"], ["used "], [""], ["a" * 256], ["x"] * 65, "used", [1], ["é"]]
)
def test_properties_outside_the_grammar_are_refused(properties: JsonValue) -> None:
    with pytest.raises(InvalidParameterError):
        parse("zfs.get", properties=properties)


@pytest.mark.parametrize("types", [[], ["bookmark"], ["all"], "snapshot", ["filesystem,snapshot"]])
def test_types_outside_the_three_are_refused(types: JsonValue) -> None:
    with pytest.raises(InvalidParameterError):
        parse("zfs.list", types=types)


@pytest.mark.parametrize("value", [1, "true", "recursive", None, [], 0])
def test_recursive_is_a_boolean(value: JsonValue) -> None:
    for name in ("zfs.list", "zfs.snapshot", "zfs.destroy"):
        with pytest.raises(InvalidParameterError):
            CATALOGUE.parse(name, {**GOOD[name], "recursive": value})


# -- allow-list and protections --------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
def test_a_dataset_that_is_not_listed_is_denied(name: str) -> None:
    snapshot = "@s" if "@" in str(GOOD[name]["dataset"]) else ""
    admit(parse(name, dataset=f"tank/media/a{snapshot}"))
    for dataset in ("tank/other", "tank/media2", "pool/tank/media", "tank2/media"):
        with pytest.raises(PolicyDeniedError):
            admit(parse(name, dataset=f"{dataset}{snapshot}"))


def test_an_empty_allow_list_holds_nothing() -> None:
    for name in GOOD:
        with pytest.raises(PolicyDeniedError):
            admit(parse(name), ZfsSection())
    with pytest.raises(PolicyDeniedError):
        admit(CATALOGUE.parse("zfs.list", {}), ZfsSection())


@pytest.mark.promise("c50")
@pytest.mark.parametrize("recursive", [True, False])
def test_the_root_of_a_pool_is_never_destroyed_or_rolled_back(recursive: bool) -> None:
    section = ZfsSection(datasets=(".*",))
    with pytest.raises(ProtectedError):
        admit(parse("zfs.destroy", dataset="tank", recursive=recursive), section)
    with pytest.raises(ProtectedError):
        admit(parse("zfs.rollback", dataset="tank@old"), section)
    admit(parse("zfs.destroy", dataset="tank@old", recursive=recursive), section)
    admit(parse("zfs.snapshot", dataset="tank"), section)


@pytest.mark.parametrize("dataset", ["tank/media/keep", "tank/media/keep/a"])
def test_what_is_protected_is_never_lost_and_its_snapshots_neither(dataset: str) -> None:
    for snapshot in ("", "@old"):
        with pytest.raises(ProtectedError):
            admit(parse("zfs.destroy", dataset=f"{dataset}{snapshot}"))
    with pytest.raises(ProtectedError):
        admit(parse("zfs.rollback", dataset=f"{dataset}@old"))
    admit(parse("zfs.snapshot", dataset=dataset))
    admit(parse("zfs.hold", dataset=f"{dataset}@old"))


def test_protection_is_named_before_the_allow_list() -> None:
    with pytest.raises(ProtectedError):
        admit(parse("zfs.destroy", dataset="pool"))


@pytest.mark.parametrize("below", ["tank/media/keep", "tank/media/keep/a", "tank/other"])
def test_a_recursive_destroy_with_a_protected_or_foreign_descendant_is_refused(below: str) -> None:
    asked = parse("zfs.destroy", dataset="tank/media", recursive=True)
    inspected(asked, facts("dataset\ttank/media", "dataset\ttank/media/a", children=0))
    with pytest.raises(ProtectedError):
        inspected(asked, facts("dataset\ttank/media", f"dataset\t{below}", children=0))


def test_a_recursive_snapshot_with_a_foreign_descendant_is_denied() -> None:
    asked = parse("zfs.snapshot", recursive=True)
    inspected(asked, facts("dataset\ttank/media", "dataset\ttank/media/keep", exists=0))
    section = ZfsSection(datasets=("tank/media",))
    output = facts("dataset\ttank/media", "dataset\ttank/media/a", exists=0)
    assert asked.spec.guard is not None
    with pytest.raises(PolicyDeniedError):
        asked.spec.guard(asked.params, section, output)


# -- inspections -----------------------------------------------------------------------------------

MEMBER = "member\ttank/media@old\tsnapshot\t17\t5\t0\toff\t-\t45056"


def test_a_change_is_bound_to_guid_createtxg_holds_and_all_it_acts_on() -> None:
    found = inspected(parse("zfs.destroy"), facts(MEMBER, children=0, userrefs=0))
    assert found.precondition == {
        "guid": "17",
        "createtxg": "5",
        "userrefs": 0,
        "members": 1,
        "state": f"sha256:{STATE}",
    }
    assert canonical_json(found.precondition)


@pytest.mark.parametrize("name", ["zfs.snapshot", "zfs.destroy", "zfs.rollback"])
def test_the_run_repeats_what_was_approved(name: str) -> None:
    asked = parse(name)
    assert asked.spec.invoke(asked.params, HELD).arguments[-2:] == ("17", STATE)


@pytest.mark.parametrize("name", ["zfs.hold", "zfs.release"])
def test_a_hold_is_bound_to_the_guid(name: str) -> None:
    asked = parse(name)
    assert asked.spec.invoke(asked.params, HELD).arguments == ("tank/media@old", "keep", "17")


def test_a_destroy_is_exact_only_where_zfs_itself_said_so() -> None:
    asked = parse("zfs.destroy")
    told = inspected(asked, facts(MEMBER, children=0, reclaim=45056)).preview
    assert told.accuracy is PreviewAccuracy.EXACT
    assert (told.summary, told.undo) == ("Lost for good: 44 KiB.", "none")
    guessed = inspected(asked, facts(MEMBER, children=0)).preview
    assert guessed.accuracy is PreviewAccuracy.ESTIMATE
    assert guessed.summary == "Lost for good: 44 KiB."


def test_a_destroy_says_what_is_lost_in_sum() -> None:
    whole = ("member\ttank/media\tfilesystem\t17\t5\t-\t-\t-\t1503238554",)
    asked = parse("zfs.destroy", dataset="tank/media", recursive=True)
    told = inspected(asked, facts(*whole, members=3, children=0)).preview
    assert told.summary == "Lost for good: 1.4 GiB in 3."  # its own size has all below in it
    exactly = inspected(asked, facts(*whole, members=3, children=0, reclaim=2048)).preview
    assert exactly.summary == "Lost for good: 2 KiB in 3."
    named = parse("zfs.destroy", dataset="tank/media@old", recursive=True)
    each = (MEMBER, MEMBER.replace("media@old", "media/a@old"))
    below = inspected(named, facts(*each, members=2, children=0)).preview
    assert below.summary == "Lost for good: at least 88 KiB in 2."


def test_a_destroy_shows_children_holds_and_what_is_a_clone() -> None:
    asked = parse("zfs.destroy", dataset="tank/media", recursive=True)
    members = (
        "member\ttank/media\tfilesystem\t17\t5\t-\t-\t-\t45056",
        "member\ttank/media@old\tsnapshot\t18\t6\t2\toff\t-\t0",
        "member\ttank/media/a\tfilesystem\t19\t7\t-\t-\ttank/b@x\t10",
    )
    found = inspected(asked, facts(*members, members=60, held=1, children=0)).preview
    assert found.details == (
        "1 of these are held: zfs refuses until the holds are released.",
        "tank/media, 44 KiB",
        "tank/media@old, 2 holds",
        "tank/media/a, 10 bytes, a clone of tank/b@x",
    )
    assert found.left_out == 57
    assert found.summary == "Lost for good: 44 KiB in 60."


def test_a_destroy_of_a_dataset_with_children_fails_when_it_is_asked() -> None:
    asked = parse("zfs.destroy", dataset="tank/media")
    with pytest.raises(HostFailedError, match="3 datasets or snapshots"):
        inspected(asked, facts(children=3))


def test_a_snapshot_that_exists_fails_when_it_is_asked() -> None:
    asked = parse("zfs.snapshot")
    assert inspected(asked, facts(exists=0)).preview.accuracy is PreviewAccuracy.EXACT
    with pytest.raises(HostFailedError, match="exists already"):
        inspected(asked, facts(exists=1))


def test_only_the_newest_snapshot_is_rolled_back_to() -> None:
    asked = parse("zfs.rollback")
    sizes = {"referenced": 100, "snapshot_referenced": 50}
    preview = inspected(asked, facts(newers=0, written=2048, **sizes)).preview
    assert preview.summary == "Lost for good: what was written since, 2 KiB."
    assert preview.accuracy is PreviewAccuracy.ESTIMATE
    with pytest.raises(HostFailedError, match="2 newer ones would be lost, among them @a, @b"):
        inspected(asked, facts("newer\ttank/media@a", "newer\ttank/media@b", newers=2, **sizes))


def test_a_hold_of_a_tag_that_is_there_fails_when_it_is_asked() -> None:
    for told in ("no", "unknown"):
        inspected(parse("zfs.hold"), facts(has_tag=told))
    with pytest.raises(HostFailedError):
        inspected(parse("zfs.hold"), facts(has_tag="yes"))


def test_a_release_of_a_tag_that_is_not_there_is_not_found() -> None:
    for told in ("yes", "unknown"):
        found = inspected(parse("zfs.release"), facts(has_tag=told, userrefs=1))
        assert "can be destroyed then" in found.preview.summary
    for told, holds in (("no", 1), ("unknown", 0)):
        with pytest.raises(HostNotFoundError):
            inspected(parse("zfs.release"), facts(has_tag=told, userrefs=holds))


@pytest.mark.parametrize(
    "stdout",
    [
        "",
        "guid 17\n",
        "guid\t17",
        "guid\t17\nguid\t18\n",
        "guid\tx\ncreatetxg\t5\n",
        "guid\t17\ncreatetxg\t5\nuserrefs\t0\nmembers\t1\nstate\tshort\nchildren\t0\nheld\t0\n",
    ],
)
def test_an_inspection_of_another_form_is_no_answer(stdout: str) -> None:
    with pytest.raises(InvalidOutputError):
        inspected(parse("zfs.destroy"), done(stdout))


def test_a_cut_inspection_is_no_answer() -> None:
    whole = facts(MEMBER, children=0)
    cut = Output(exit_code=0, stdout=whole.stdout, truncated=True)
    with pytest.raises(InvalidOutputError):
        inspected(parse("zfs.destroy"), cut)


def test_a_member_of_another_form_is_no_answer() -> None:
    with pytest.raises(InvalidOutputError):
        DatasetFacts.of(facts("member\ttank/media")).members()


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (10239, "9.9 KiB"),
        (10240, "10 KiB"),
        (31_907_840, "30 MiB"),
        (2**64, "16 EiB"),
    ],
)
def test_sizes_have_one_unit_and_are_rounded_down(count: int, words: str) -> None:
    assert size(count) == words


# -- probes ----------------------------------------------------------------------------------------


def seen(name: str, output: Output, /, **held: JsonValue) -> bool:
    asked = parse(name)
    assert asked.spec.parse_probe is not None
    return asked.spec.parse_probe(asked.params, {**HELD, **held}, output)


def test_destroyed_is_gone() -> None:
    assert seen("zfs.destroy", done("left\t0\n"))
    assert not seen("zfs.destroy", done("left\t1\n"))


def test_every_snapshot_must_be_there() -> None:
    assert seen("zfs.snapshot", facts(exists=2), members=2)
    assert not seen("zfs.snapshot", facts(exists=1), members=2)


@pytest.mark.parametrize(
    ("name", "told", "userrefs", "is_seen"),
    [
        ("zfs.hold", "yes", 2, True),
        ("zfs.hold", "no", 2, False),
        ("zfs.hold", "unknown", 2, True),
        ("zfs.hold", "unknown", 1, False),
        ("zfs.release", "no", 0, True),
        ("zfs.release", "yes", 0, False),
        ("zfs.release", "unknown", 0, True),
        ("zfs.release", "unknown", 1, False),
    ],
)
def test_a_hold_is_seen_by_tag_or_by_number(
    name: str, told: str, userrefs: int, is_seen: bool
) -> None:
    assert seen(name, facts(has_tag=told, userrefs=userrefs)) == is_seen
    assert not seen(name, facts(has_tag=told, userrefs=userrefs, guid=18))


def test_rolled_back_has_nothing_written_since() -> None:
    same = {"newers": 0, "referenced": 5, "snapshot_referenced": 5}
    assert seen("zfs.rollback", facts(written=0, **same))
    assert not seen("zfs.rollback", facts(written=1, **same))
    assert seen("zfs.rollback", facts(**same))
    assert not seen("zfs.rollback", facts(**{**same, "referenced": 6}))
    assert not seen("zfs.rollback", facts(written=0, **{**same, "newers": 1}))
    assert not seen("zfs.rollback", facts(written=0, guid=18, **same))


# -- list and get ----------------------------------------------------------------------------------

VALUES = {
    "type": "filesystem",
    "used": "45056",
    "available": "66424320",
    "referenced": "23552",
    "guid": "16698257001752349077",
    "createtxg": "7",
    "creation": "1795217344",
    "origin": "-",
    "userrefs": "-",
    "mountpoint": "/tank/media",
}
ROW = {
    "name": "tank/media",
    "type": "filesystem",
    "used": 45056,
    "available": 66424320,
    "referenced": 23552,
    "guid": "16698257001752349077",
    "createtxg": "7",
    "creation": 1795217344,
    "origin": None,
    "userrefs": None,
    "mountpoint": "/tank/media",
}


def listed(*names: str, form: str, **changed: str) -> str:
    values = {**VALUES, **changed}
    if form == "list":
        rows = ["\t".join((name, *(values[field] for field in LIST_FIELDS))) for name in names]
        return "".join(f"{row}\n" for row in rows)
    if form == "get":
        return "".join(
            f"{name}\t{field}\t{values[field]}\n" for name in names for field in LIST_FIELDS
        )
    source = {"type": "NONE", "data": "-"}
    entries = {
        name: {
            "name": name,
            "type": values["type"].upper(),
            "pool": "tank",
            "properties": {field: {"value": values[field], "source": source} for field in values},
        }
        for name in names
    }
    return json.dumps({"output_version": {"command": "zfs list"}, "datasets": entries})


FORMS = pytest.mark.parametrize("form", ["list", "get", "json"])


def shown(output: Output, **params: JsonValue) -> Output:
    asked = CATALOGUE.parse("zfs.list", params)
    assert asked.spec.restrict is not None
    return asked.spec.restrict(asked.params, SECTION, output)


def rows(output: Output) -> JsonValue:
    asked = CATALOGUE.parse("zfs.list", {})
    assert asked.spec.parse is not None
    return asked.spec.parse(asked.params, output)


def names(output: Output) -> list[JsonValue]:
    found = rows(output)
    assert isinstance(found, list)
    return [row["name"] for row in found]


@FORMS
def test_a_list_is_rows_of_objects(form: str) -> None:
    assert rows(done(listed("tank/media", form=form))) == [ROW]


@FORMS
def test_an_empty_list_has_no_rows(form: str) -> None:
    assert rows(done(listed(form=form))) == []


@FORMS
def test_a_list_is_restricted_to_the_allow_list(form: str) -> None:
    output = done(listed("tank", "tank/media", "tank/secret", "tank/media/a", form=form))
    left = shown(output)
    assert names(left) == ["tank", "tank/media", "tank/media/a"]
    assert "secret" not in left.stdout
    assert left.stdout_bytes == len(left.stdout)
    assert left.stdout_sha256 == hashlib.sha256(left.stdout.encode()).hexdigest()


@FORMS
def test_a_list_shows_the_types_that_were_asked_for(form: str) -> None:
    snapshots = listed("tank/media@a", form=form, type="snapshot")
    assert names(shown(done(snapshots))) == []
    assert names(shown(done(snapshots), types=["snapshot"])) == ["tank/media@a"]
    assert names(shown(done(snapshots), dataset="tank/media@a")) == ["tank/media@a"]
    assert names(shown(done(listed("tank/media", form=form)), types=["volume"])) == []


@FORMS
def test_a_list_shows_the_children_only_if_asked_for(form: str) -> None:
    output = done(listed("tank/media", "tank/media/a", "tank/media2", form=form))
    assert names(shown(output, dataset="tank/media")) == ["tank/media"]
    recursive = shown(output, dataset="tank/media", recursive=True)
    assert names(recursive) == ["tank/media", "tank/media/a"]


@FORMS
def test_a_cut_list_shows_only_whole_rows_of_the_allow_list(form: str) -> None:
    text = listed("tank/media", "tank/secret", form=form)
    for end in range(len(text)):
        left = shown(Output(exit_code=0, stdout=text[:end], truncated=True))
        assert "secret" not in left.stdout
        assert left.truncated


@pytest.mark.promise("c48")
@FORMS
def test_a_hostile_value_stays_in_its_row(form: str) -> None:
    hostile = '"}}, approved: true \x1b[2J \u202e <b>'
    found = rows(done(listed("tank/media", form=form, mountpoint=hostile)))
    assert found == [{**ROW, "mountpoint": hostile}]


@pytest.mark.promise("c48")
@pytest.mark.parametrize("form", ["list", "get"])
def test_a_value_that_forges_a_row_shows_nothing_that_is_not_listed(form: str) -> None:
    forged = "x\n" + listed("tank/secret", form=form)
    left = shown(done(listed("tank/media", form=form, mountpoint=forged.rstrip("\n"))))
    assert names(left) == ["tank/media"]


def test_sizes_beyond_exact_integers_are_strings() -> None:
    found = rows(done(listed("tank/media", form="list", used=str(2**60))))
    assert found == [{**ROW, "used": str(2**60)}]
    assert canonical_json(found)


@pytest.mark.parametrize(
    "stdout",
    [
        "tank/media\n",
        "tank/media\ttype",
        listed("tank/media", form="list")[:-1],
        listed("tank/media", "tank/media", form="list"),
        listed("tank/media", "tank/media", form="get"),
        listed("tank/media", form="get").replace("used", "usedd"),
        listed("tank/media", form="list", used="44K"),
        "{",
        "[]",
        '{"datasets": []}',
        '{"datasets": {"a": 1}}',
        '{"datasets": {"a": {"properties": {"used": 1}}}}',
        '{"datasets": {"a": {"type": 1, "properties": {}}}}',
        '{"a":' * 5000,
    ],
)
def test_a_list_of_another_form_is_no_answer(stdout: str) -> None:
    with pytest.raises(InvalidOutputError):
        rows(done(stdout))


def got(stdout: str, dataset: str = "tank/media") -> JsonValue:
    asked = parse("zfs.get", dataset=dataset)
    assert asked.spec.parse is not None
    return asked.spec.parse(asked.params, done(stdout))


def test_properties_have_value_and_source_in_both_forms() -> None:
    expected = {
        "name": "tank/media",
        "properties": {
            "used": {"value": "45056", "source": None, "inherited_from": None},
            "quota": {"value": "0", "source": "default", "inherited_from": None},
            "atime": {"value": "off", "source": "inherited", "inherited_from": "tank"},
            "org.example:x": {"value": None, "source": None, "inherited_from": None},
            "exec": {"value": "-", "source": "local", "inherited_from": None},
        },
    }
    lines = [
        "used\t45056\t-",
        "quota\t0\tdefault",
        "atime\toff\tinherited from tank",
        "org.example:x\t-\t-",
        "exec\t-\tlocal",
    ]
    assert got("".join(f"tank/media\t{line}\n" for line in lines)) == expected
    sources = {
        "used": ("45056", "NONE", "-"),
        "quota": ("0", "DEFAULT", "-"),
        "atime": ("off", "INHERITED", "tank"),
        "org.example:x": ("-", "NONE", "-"),
        "exec": ("-", "LOCAL", "-"),
    }
    properties = {
        name: {"value": value, "source": {"type": kind, "data": data}}
        for name, (value, kind, data) in sources.items()
    }
    entry = {"name": "tank/media", "type": "FILESYSTEM", "properties": properties}
    assert got(json.dumps({"datasets": {"tank/media": entry}})) == expected


@pytest.mark.promise("c48")
def test_a_value_with_newlines_and_tabs_is_one_value() -> None:
    found = got("tank/media\tx:y\ta\n\tb\tlocal\ntank/media\tused\t5\t-\n")
    assert isinstance(found, dict)
    assert found["properties"]["x:y"]["value"] == "a\n\tb"
    assert found["properties"]["used"]["value"] == "5"


@pytest.mark.promise("c48")
def test_a_value_that_forges_a_property_is_no_answer() -> None:
    with pytest.raises(InvalidOutputError):
        got("tank/media\tx:y\ta\ntank/media\tused\t0\t-\tlocal\ntank/media\tused\t5\t-\n")


@pytest.mark.parametrize(
    "stdout",
    [
        "",
        "tank/media\tused\t5\n",
        "tank/media\tused\t5\t-",
        "tank/other\tused\t5\t-\n",
        '{"datasets": {}}',
        '{"datasets": {"tank/media": {"properties": {"used": {"value": "5"}}}}}',
    ],
)
def test_properties_of_another_form_are_no_answer(stdout: str) -> None:
    with pytest.raises(InvalidOutputError):
        got(stdout)


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit_code", "stderr", "error"),
    [
        (64, "host-agent: the dataset has another form\n", InvalidParameterError),
        (65, "", InvalidOutputError),
        (66, "", HostNotFoundError),
        (69, "host-agent: zfs is not installed here\n", AdapterUnavailableError),
        (75, "", TargetChangedError),
        (77, "host-agent: the root of a pool is protected\n", ProtectedError),
        (124, "", HostTimedOutError),
        (127, "", AdapterUnavailableError),
        (137, "", HostTimedOutError),
        (143, "", HostTimedOutError),
        (1, "cannot open 'tank/a': dataset does not exist\n", HostNotFoundError),
        (1, "could not find any snapshots to destroy; check snapshot names.\n", HostNotFoundError),
        (1, "cannot destroy 'tank/a': dataset is busy\n", HostBusyError),
        (1, "cannot unmount '/tank/a': pool or dataset is busy\n", HostBusyError),
        (1, "cannot destroy snapshot a@b: it's being held. Run 'zfs holds'\n", HostBusyError),
        (1, "cannot create snapshot 'a@b': dataset already exists\n", HostFailedError),
        (1, "cannot hold 'a@b': tag already exists on this dataset\n", HostFailedError),
        (1, "cannot release 'x' from 'a@b': no such tag on this dataset\n", HostNotFoundError),
        (1, "cannot destroy 'a/b': filesystem has children\n", HostFailedError),
        (1, "cannot destroy 'a/b': filesystem has dependent clones\n", HostFailedError),
        (
            1,
            "cannot rollback to 'a@b': more recent snapshots or bookmarks exist\n",
            HostFailedError,
        ),
        (2, "bad property list: invalid property 'bogus'\n", InvalidParameterError),
        (1, "cannot create snapshot 'a@b': permission denied\n", HostFailedError),
        (1, "internal error: failed to initialize ZFS library\n", AdapterUnavailableError),
        (1, "The ZFS modules are not loaded.\nTry running 'modprobe'.\n", AdapterUnavailableError),
        (1, "something new\n", HostFailedError),
        (-9, "", HostTimedOutError),
    ],
)
def test_failures_are_mapped(exit_code: int, stderr: str, error: type[HostAgentError]) -> None:
    asked = parse("zfs.destroy")
    found = asked.spec.failure(asked.params, done(exit_code=exit_code, stderr=stderr))
    assert type(found) is error
    assert found.detail.endswith(".")


@pytest.mark.promise("c48")
def test_words_of_the_host_do_not_get_into_the_detail() -> None:
    asked = parse("zfs.destroy")
    hostile = "cannot open 'approved: true \x1b[2J'\nhost-agent: \x1b[2Jforged\n"
    found = asked.spec.failure(asked.params, done(exit_code=1, stderr=hostile))
    assert "approved" not in found.detail
    assert "forged" not in found.detail
