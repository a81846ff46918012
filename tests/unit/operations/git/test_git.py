"""The git adapter's declarations and pure functions; no process is started here."""

import pytest

from host_agent.canonical import JsonValue, canonical_json
from host_agent.errors import (
    AdapterUnavailableError,
    HostAgentError,
    HostFailedError,
    HostNotFoundError,
    HostTimedOutError,
    InvalidOutputError,
    InvalidParameterError,
    PolicyDeniedError,
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
from host_agent.operations.git import output as git_output
from host_agent.operations.git.adapter import ADAPTER, SPECS, is_ref, is_repository_path
from host_agent.operations.git.section import GitSection

CATALOGUE = Catalogue((ADAPTER,))
COMMIT, OTHER = "a" * 40, "b" * 40
GOOD: dict[str, dict[str, JsonValue]] = {
    "git.status": {"repository": "/srv/app"},
    "git.log": {"repository": "/srv/app", "limit": 5, "ref": "main"},
    "git.diff": {"repository": "/srv/app", "ref": COMMIT},
    "git.fetch": {"repository": "/srv/app", "remote": "origin"},
    "git.pull": {"repository": "/srv/app", "remote": "origin", "branch": "main"},
    "git.switch": {"repository": "/srv/app", "branch": "release/1.0"},
    "git.reset": {"repository": "/srv/app", "ref": "v1.0"},
}
SECTION = GitSection.model_validate_json(
    '{"repositories": [{"path": "/srv/app", "remotes": ["origin"],'
    ' "branches": ["main", "release/.*"]}, {"path": "/srv/bare"}]}'
)
PRECONDITION: dict[str, JsonValue] = {
    "repository": "1:2:3",
    "git_directory": "1:4:3",
    "head": COMMIT,
    "head_ref": "refs/heads/main",
    "dirty": True,
    "target": OTHER,
    "changes": "sha256:" + "c" * 64,
    "remote_url": "/srv/origin.git",
}


def parse(name: str, **changed: JsonValue) -> Operation:
    return CATALOGUE.parse(name, {**GOOD[name], **changed})


def admit(asked: Operation) -> None:
    asked.spec.admit(asked.params, SECTION)


def done(stdout: str = "", *, exit_code: int = 0, stderr: str = "") -> Output:
    return Output(exit_code=exit_code, stdout=stdout, stderr=stderr)


# -- the table -------------------------------------------------------------------------------------


def test_effects_are_those_of_the_contract() -> None:
    effects = {spec.name.removeprefix("git."): spec.effect for spec in SPECS}
    assert effects == {
        **dict.fromkeys(("status", "log", "diff"), Effect.READ),
        **dict.fromkeys(("fetch", "pull", "switch"), Effect.CHANGE),
        "reset": Effect.DESTROY,
    }


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_operation_runs_as_the_unix_user(spec: OperationSpec) -> None:
    asked = parse(spec.name)
    assert spec.run_as is RunAs.UNIX_USER
    assert spec.invoke(asked.params, PRECONDITION).run_as is RunAs.UNIX_USER
    assert asked.resource == "/srv/app"


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_only_changes_are_inspected(spec: OperationSpec) -> None:
    assert (spec.inspect is None) == (spec.effect is Effect.READ)
    assert (spec.inspect is None) == (spec.parse_inspection is None)


def test_positional_order_is_that_of_the_contract() -> None:
    assert {spec.name: spec.parameters.positional for spec in SPECS} == {
        "git.status": ("repository",),
        "git.log": ("repository", "limit", "ref"),
        "git.diff": ("repository", "ref"),
        "git.fetch": ("repository", "remote"),
        "git.pull": ("repository", "remote", "branch"),
        "git.switch": ("repository", "branch"),
        "git.reset": ("repository", "ref"),
    }


def test_defaults_are_filled_in() -> None:
    asked = CATALOGUE.parse("git.log", {"repository": "/srv/app"})
    assert asked.params.canonical() == {"repository": "/srv/app", "limit": 20, "ref": None}


# -- parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1001, -1, "5", True, 1.0, None])
def test_limit_is_an_integer_from_1_to_1000(limit: JsonValue) -> None:
    with pytest.raises(InvalidParameterError):
        parse("git.log", limit=limit)


@pytest.mark.parametrize("limit", [1, 1000])
def test_limit_takes_its_bounds(limit: int) -> None:
    assert parse("git.log", limit=limit).params.canonical()["limit"] == limit


@pytest.mark.promise("c19")
@pytest.mark.parametrize("name", GOOD)
def test_unknown_parameter_is_refused(name: str) -> None:
    with pytest.raises(InvalidParameterError):
        parse(name, argv=["--help"])


TEXTS = [
    (name, field)
    for name, params in GOOD.items()
    for field, value in params.items()
    if isinstance(value, str)
]


@pytest.mark.promise("c20")
@pytest.mark.parametrize(("name", "field"), TEXTS)
@pytest.mark.parametrize(
    "value",
    ["-", "--", "-h", "--upload-pack=id", "--output=/tmp/x", "-oProxyCommand=id", "--exec=id"],
)
def test_leading_dash_is_refused(name: str, field: str, value: str) -> None:
    with pytest.raises(InvalidParameterError):
        parse(name, **{field: value})


@pytest.mark.promise("c21")
@pytest.mark.parametrize(("name", "field"), TEXTS)
@pytest.mark.parametrize(
    "value",
    [
        "main;id",
        "$(id)",
        "`id`",
        "main\n",
        "main\nid",
        "main\r",
        "main\0",
        "a b",
        "a[$(id)]",
        "*",
        "{a,b}",
        "~",
        "main|id",
        "main&",
        "main>x",
        "",
    ],
)
def test_metacharacters_are_refused(name: str, field: str, value: str) -> None:
    with pytest.raises(InvalidParameterError):
        parse(name, **{field: value})


@pytest.mark.promise("c30")
@pytest.mark.parametrize(("name", "field"), TEXTS)
@pytest.mark.parametrize(
    "value", ["m\u0430in", "ma\u202ein", "ma\u200bin", "\uff0fsrv", "\uff4dain", "main\u00e9"]
)
def test_lookalikes_are_refused(name: str, field: str, value: str) -> None:
    with pytest.raises(InvalidParameterError):
        parse(name, **{field: f"/{value}" if field == "repository" else value})


@pytest.mark.promise("c50")
@pytest.mark.parametrize(
    "path",
    [
        "/srv/app/",
        "/srv//app",
        "/srv/./app",
        "/srv/../etc",
        "/srv/app/..",
        "/srv/app/.",
        "srv/app",
        "./app",
        "/",
        "//srv/app",
        "~/app",
        "file:///srv/app",
        "https://example.org/app",
        "/" + "x" * 4096,
    ],
)
def test_path_that_is_not_absolute_and_normal_is_refused(path: str) -> None:
    assert not is_repository_path(path)
    with pytest.raises(InvalidParameterError):
        parse("git.status", repository=path)


@pytest.mark.promise("c50")
@pytest.mark.parametrize("field", ["remote", "branch"])
@pytest.mark.parametrize(
    "value",
    [
        "https://example.org/x",
        "ext::sh",
        "git@example.org:x",
        "/srv/other",
        "../other",
        "main:main",
        "+main",
        "refs/heads/*",
        "main^",
        "main~1",
        "@{-1}",
        "a@{1}",
        "a..b",
        ":/fix",
        "x" * 201,
    ],
)
def test_url_refspec_or_revision_is_refused(field: str, value: str) -> None:
    with pytest.raises(InvalidParameterError):
        parse("git.pull", **{field: value})


@pytest.mark.parametrize(
    "ref", ["main", "release/1.0", "v1.0-rc.1+5", "README.md", "a./b", "x" * 200, COMMIT]
)
def test_refs_that_git_accepts_are_accepted(ref: str) -> None:
    assert is_ref(ref)


@pytest.mark.parametrize(
    "ref",
    ["HEAD", "a..b", "a//b", "a/", "a.", "a/.b", "a.lock", "a.lock/b", ".a", "_a", "@", "a@{b}"],
)
def test_refs_that_git_refuses_are_refused(ref: str) -> None:
    assert not is_ref(ref)


# -- allow-lists -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOOD)
def test_listed_repository_remote_and_branch_are_admitted(name: str) -> None:
    admit(parse(name))


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("path", ["/srv/app-evil", "/srv/ap", "/srv/app/sub", "/srv", "/srv/App"])
def test_repository_that_is_not_exactly_listed_is_denied(name: str, path: str) -> None:
    with pytest.raises(PolicyDeniedError):
        admit(parse(name, repository=path))


@pytest.mark.parametrize("name", ["git.fetch", "git.pull"])
@pytest.mark.parametrize("remote", ["upstream", "origin2", "Origin"])
def test_remote_that_is_not_listed_is_denied(name: str, remote: str) -> None:
    with pytest.raises(PolicyDeniedError):
        admit(parse(name, remote=remote))


@pytest.mark.parametrize("name", ["git.pull", "git.switch"])
@pytest.mark.parametrize("branch", ["main2", "xmain", "release", "feature/main", "MAIN"])
def test_branch_that_no_pattern_matches_wholly_is_denied(name: str, branch: str) -> None:
    with pytest.raises(PolicyDeniedError):
        admit(parse(name, branch=branch))


@pytest.mark.parametrize("name", ["git.fetch", "git.pull", "git.switch"])
def test_empty_lists_admit_nothing(name: str) -> None:
    with pytest.raises(PolicyDeniedError):
        admit(parse(name, repository="/srv/bare"))
    asked = parse(name)
    with pytest.raises(PolicyDeniedError):
        asked.spec.admit(asked.params, GitSection())


# -- invocations -----------------------------------------------------------------------------------

HOLD = "1:2:3,1:4:3"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("git.status", ("status", "/srv/app")),
        ("git.log", ("log", "/srv/app", "5", "main")),
        ("git.diff", ("diff", "/srv/app", COMMIT)),
        ("git.fetch", ("fetch", "/srv/app", HOLD, "origin")),
        ("git.pull", ("pull", "/srv/app", HOLD, COMMIT, "origin", "main", OTHER)),
        (
            "git.switch",
            ("switch", "/srv/app", HOLD, COMMIT, "refs/heads/main", "release/1.0", OTHER),
        ),
        (
            "git.reset",
            ("reset", "/srv/app", HOLD, COMMIT, "refs/heads/main", "c" * 64, "v1.0", OTHER),
        ),
    ],
)
def test_run_carries_the_precondition(name: str, arguments: tuple[str, ...]) -> None:
    asked = parse(name)
    assert asked.spec.invoke(asked.params, PRECONDITION).arguments == arguments


@pytest.mark.parametrize("name", ["git.log", "git.diff"])
def test_ref_that_is_left_out_is_no_argument(name: str) -> None:
    asked = CATALOGUE.parse(name, {"repository": "/srv/app"})
    arguments = asked.spec.invoke(asked.params, {}).arguments
    assert arguments[2:] == (("20",) if name == "git.log" else ())


# -- output ----------------------------------------------------------------------------------------

STATUS = f"""# branch.oid {COMMIT}
# branch.head main
# branch.upstream origin/main
# branch.ab +2 -1
1 .M N... 100644 100644 100644 {COMMIT} {COMMIT} a file.txt
1 A. S.M. 000000 100644 100644 {"0" * 40} {COMMIT} "tab\\there"
u UU N... 100644 100644 100644 100644 {COMMIT} {COMMIT} {COMMIT} both
? new dir/
"""


def test_status_is_parsed() -> None:
    assert git_output.parse_status(done(STATUS)) == {
        "branch": {
            "commit": COMMIT,
            "name": "main",
            "upstream": "origin/main",
            "ahead": 2,
            "behind": 1,
        },
        "changes": [
            {"path": "a file.txt", "index": ".", "working_tree": "M", "unmerged": False},
            {"path": "tab\there", "index": "A", "working_tree": ".", "unmerged": False},
            {"path": "both", "index": "U", "working_tree": "U", "unmerged": True},
        ],
        "untracked": ["new dir/"],
    }


def test_status_of_an_empty_detached_repository_has_no_commit_and_no_name() -> None:
    parsed = git_output.parse_status(done("# branch.oid (initial)\n# branch.head (detached)\n"))
    assert parsed == {
        "branch": {"commit": None, "name": None, "upstream": None, "ahead": None, "behind": None},
        "changes": [],
        "untracked": [],
    }


@pytest.mark.parametrize(
    "stdout", ["", "garbage\n", STATUS + "1 .M short\n", STATUS[:-1], "# branch.oid x\n"]
)
def test_status_of_another_form_is_no_answer(stdout: str) -> None:
    with pytest.raises(InvalidOutputError):
        git_output.parse_status(done(stdout))


RECORD = f"commit {COMMIT}\nauthor Ann\nemail ann@x\ndate 2026-11-20T22:00:00Z\nsubject fix\n\n"


def test_log_is_parsed() -> None:
    parsed = git_output.parse_log(done(RECORD + RECORD.replace("fix", "")))
    commit = {
        "commit": COMMIT,
        "author": "Ann",
        "email": "ann@x",
        "date": "2026-11-20T22:00:00Z",
        "subject": "fix",
    }
    assert parsed == {"commits": [commit, {**commit, "subject": ""}]}


@pytest.mark.promise("c48")
@pytest.mark.parametrize(
    "subject", ["approved: true", "a\rb", "\x1b[2Jx", '"}]', "a\x85b\u2028c", "commit " + OTHER]
)
def test_hostile_subject_stays_one_field(subject: str) -> None:
    parsed = git_output.parse_log(done(RECORD.replace("fix", subject)))
    canonical_json(parsed)
    assert isinstance(parsed, dict)
    assert [entry["subject"] for entry in parsed["commits"]] == [subject]


@pytest.mark.parametrize(
    "stdout", [RECORD[:-1], RECORD[:-2], RECORD.replace("author", "writer"), "x\n" * 6, "\n" * 6]
)
def test_log_of_another_form_is_no_answer(stdout: str) -> None:
    with pytest.raises(InvalidOutputError):
        git_output.parse_log(done(stdout))


def test_diff_is_parsed_up_to_the_patch() -> None:
    stdout = '1\t2\ta b\n-\t-\timage\n0\t1\t"q\\"uote"\n\ndiff --git a/x b/x\nnot\tparsed\n'
    assert git_output.parse_diff(done(stdout)) == {
        "files": [
            {"path": "a b", "added": 1, "removed": 2},
            {"path": "image", "added": None, "removed": None},
            {"path": 'q"uote', "added": 0, "removed": 1},
        ]
    }
    assert git_output.parse_diff(done()) == {"files": []}


def test_diff_of_another_form_is_no_answer() -> None:
    with pytest.raises(InvalidOutputError):
        git_output.parse_diff(done("diff --git a/x b/x\n"))


@pytest.mark.parametrize(
    ("quoted", "name"),
    [
        ("plain", "plain"),
        (r'"a\tb"', "a\tb"),
        (r'"\001\033\177"', "\x01\x1b\x7f"),
        (r'"\\n"', r"\n"),
        (r'"\""', '"'),
        ('""', ""),
    ],
)
def test_file_names_are_unquoted(quoted: str, name: str) -> None:
    assert git_output.unquote(quoted) == name


@pytest.mark.parametrize("quoted", ['"', '"a', r'"\x"', r'"\9"', r'"a\"'])
def test_quoting_of_another_form_is_no_answer(quoted: str) -> None:
    with pytest.raises(InvalidOutputError):
        git_output.unquote(quoted)


# -- inspections -----------------------------------------------------------------------------------

FACTS = f"""repository 1:2:3
git_directory 1:4:3
head {COMMIT}
head_ref refs/heads/main
dirty no
"""


def inspection(name: str, stdout: str) -> Inspection:
    asked = parse(name)
    assert asked.spec.parse_inspection is not None
    return asked.spec.parse_inspection(asked.params, done(stdout))


def test_pull_binds_repository_head_remote_and_commit() -> None:
    found = inspection(
        "git.pull",
        FACTS + f"remote_url /o\ntarget {OTHER}\ncommit_count 2\ncommit bbb two\ncommit ccc one\n",
    )
    assert found.precondition == {
        "repository": "1:2:3",
        "git_directory": "1:4:3",
        "head": COMMIT,
        "head_ref": "refs/heads/main",
        "dirty": False,
        "target": OTHER,
        "remote_url": "/o",
    }
    assert found.preview.accuracy is PreviewAccuracy.EXACT
    assert found.preview.summary == "2 commits come."
    assert found.preview.details == ("bbb two", "ccc one")
    assert found.preview.undo == f"reset to {COMMIT[:7]}"


def test_pull_of_commits_that_are_not_here_is_an_estimate() -> None:
    found = inspection("git.pull", FACTS + f"remote_url /o\ntarget {OTHER}\n")
    assert found.preview.accuracy is PreviewAccuracy.ESTIMATE
    assert found.preview.details == ("origin is /o",)
    assert not found.is_done_already


@pytest.mark.parametrize(("target", "is_nothing"), [(COMMIT, True), (OTHER, False)])
def test_pull_of_the_commit_that_is_checked_out_is_nothing_to_do(
    target: str, is_nothing: bool
) -> None:
    found = inspection("git.pull", FACTS + f"remote_url /o\ntarget {target}\ncommit_count 0\n")
    assert found.preview.accuracy is PreviewAccuracy.EXACT
    assert found.is_done_already is is_nothing


@pytest.mark.parametrize(
    ("head_ref", "is_nothing"),
    [("refs/heads/release/1.0", True), ("refs/heads/main", False), ("detached", False)],
)
def test_switch_to_the_branch_that_is_checked_out_is_nothing_to_do(
    head_ref: str, is_nothing: bool
) -> None:
    facts = FACTS.replace("head_ref refs/heads/main", f"head_ref {head_ref}")
    found = inspection("git.switch", f"{facts}target {COMMIT}\nfile_count 0\n")
    assert found.is_done_already is is_nothing


def test_reset_tells_what_is_lost_and_how_much_more() -> None:
    line = f"1 .M N... 100644 100644 100644 {COMMIT} {COMMIT} file.txt"
    found = inspection(
        "git.reset",
        FACTS.replace("dirty no", "dirty yes")
        + f"target {OTHER}\nchanges {'c' * 64}\nfile_count 3\nfile {line}\ncommit_count 0\n",
    )
    assert found.precondition["changes"] == "sha256:" + "c" * 64
    assert found.preview.summary == (
        f"Lost for good: 3 uncommitted changes; no commit leaves main, which goes to {OTHER[:7]}."
    )
    assert found.preview.details[1:] == (".M file.txt",)
    assert found.preview.left_out == 2


def test_commit_line_cannot_stand_for_a_fact() -> None:
    found = inspection(
        "git.pull",
        FACTS + f"remote_url /o\ntarget {OTHER}\ncommit_count 1\ncommit x target {COMMIT}\n",
    )
    assert found.precondition["target"] == OTHER


@pytest.mark.parametrize(
    "stdout",
    [
        "",
        FACTS,
        FACTS + f"target {OTHER}\ntarget {COMMIT}\nfile_count 0\n",
        FACTS.replace("1:2:3", "1:2") + f"target {OTHER}\nfile_count 0\n",
        FACTS + "target main\nfile_count 0\n",
        FACTS + f"target {OTHER}\nfile_count 0",
        FACTS + f"target {OTHER}\nword\nfile_count 0\n",
    ],
)
def test_inspection_of_another_form_is_no_answer(stdout: str) -> None:
    with pytest.raises(InvalidOutputError):
        inspection("git.switch", stdout)


def test_inspection_that_was_cut_is_no_answer() -> None:
    asked = parse("git.fetch")
    assert asked.spec.parse_inspection is not None
    output = Output(exit_code=0, stdout=FACTS + "remote_url /o\n", truncated=True)
    with pytest.raises(InvalidOutputError):
        asked.spec.parse_inspection(asked.params, output)


# -- probes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "state", "is_seen"),
    [
        ("git.pull", f"head {OTHER}\nhead_ref refs/heads/main\ndirty yes\n", True),
        ("git.pull", f"head {COMMIT}\nhead_ref refs/heads/main\ndirty no\n", False),
        ("git.pull", f"head {OTHER}\nhead_ref detached\ndirty no\n", False),
        ("git.switch", f"head {OTHER}\nhead_ref refs/heads/release/1.0\ndirty no\n", True),
        ("git.switch", f"head {OTHER}\nhead_ref refs/heads/main\ndirty no\n", False),
        ("git.reset", f"head {OTHER}\nhead_ref refs/heads/main\ndirty no\n", True),
        ("git.reset", f"head {OTHER}\nhead_ref refs/heads/main\ndirty yes\n", False),
    ],
)
def test_probe_sees_the_effect_or_not(name: str, state: str, is_seen: bool) -> None:
    asked = parse(name)
    assert asked.spec.parse_probe is not None
    assert asked.spec.parse_probe(asked.params, PRECONDITION, done(state)) is is_seen


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit_code", "error"),
    [
        (64, InvalidParameterError),
        (66, HostNotFoundError),
        (75, TargetChangedError),
        (77, PolicyDeniedError),
        (78, PolicyDeniedError),
        (124, HostTimedOutError),
        (137, HostTimedOutError),
        (127, AdapterUnavailableError),
        (1, HostFailedError),
        (128, HostFailedError),
        (129, HostFailedError),
        (-9, HostTimedOutError),
    ],
)
def test_exit_status_becomes_its_error(exit_code: int, error: type[HostAgentError]) -> None:
    asked = parse("git.status")
    assert type(asked.spec.failure(asked.params, done(exit_code=exit_code))) is error


def test_detail_names_the_key_that_was_refused() -> None:
    asked = parse("git.status")
    stderr = "host-agent: unsupported configuration key: core.fsmonitor\n"
    error = asked.spec.failure(asked.params, done(exit_code=78, stderr=stderr))
    assert "core.fsmonitor" in error.detail


@pytest.mark.parametrize("said", ["host-agent: \x1b[2J", "remote: host-agent: x", "x" * 500])
def test_detail_takes_nothing_else_from_standard_error(said: str) -> None:
    asked = parse("git.status")
    error = asked.spec.failure(asked.params, done(exit_code=78, stderr=f"{said}\n"))
    assert error.detail == "This repository cannot be trusted as it is configured."


def test_empty_repository_is_not_found() -> None:
    asked = parse("git.log")
    stderr = "fatal: your current branch 'main' does not have any commits yet\n"
    error = asked.spec.failure(asked.params, done(exit_code=128, stderr=stderr))
    assert isinstance(error, HostNotFoundError)
