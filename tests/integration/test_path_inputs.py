"""Hostile words and many hands: replays, races, look-alikes, forged lines, secrets, labels."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from host_agent.requests import codes
from host_agent.requests.notification import CodeHash, Purpose
from tests.support.site import make_site
from tests.support.visit import Visit, objects, problem, visited

LIMITS = "[limits]\nask_burst = 1000\ndecision_burst = 1000\nheld_off_after = 1000"


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    site = make_site(tmp_path / "site")
    site.configure(extra=LIMITS)
    async with visited(site) as visit:
        yield visit


# -- replays --------------------------------------------------------------------------------------


@pytest.mark.promise("c28")
async def test_an_answer_is_good_once_and_for_one_request(visit: Visit) -> None:
    first = await visit.held()
    switch = {**visit.site.status(), "branch": "topic"}
    second = (await visit.ask("git.switch", switch)).json()
    mixed = {**second, "digest": first["digest"]}
    assert problem(await visit.decide(mixed)) == "approval:digest-mismatch"
    await visit.decide(first)
    await visit.ended(first)
    world = visit.world()
    for _ in range(2):
        assert problem(await visit.decide(first)) == "approval:already-decided"
        assert problem(await visit.decide(first, by="erin")) == "approval:already-decided"
    assert visit.world() == world
    assert visit.site.events().count("operation.started") == 1


@pytest.mark.promise("c28")
async def test_an_answer_after_a_denial_is_refused_and_written_down(visit: Visit) -> None:
    held = await visit.held()
    await visit.decide(held, "deny")
    repository = visit.site.repository.snapshot()
    answer = await visit.decide(held, by="erin")
    assert problem(answer) == "approval:already-decided"
    refused = visit.site.records()[-1]
    assert (refused["event"], refused["code"]) == ("request.refused", "approval:already-decided")
    assert (refused["caller"], refused["request_id"]) == ("erin", held["request_id"])
    assert refused["exchange_id"] == answer.headers["x-request-id"] != held["request_id"]
    assert visit.site.repository.snapshot() == repository


@pytest.mark.promise("c28")
async def test_a_link_that_is_looked_at_decides_nothing(visit: Visit) -> None:
    """Mail scanners and chat previews follow links with GET and HEAD."""
    held = await visit.held()
    world = visit.world()
    client, base = visit.who("alice"), f"/requests/{held['request_id']}"
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE"):
        for path in (f"{base}/decision?decision=approve&digest={held['digest']}", "/approve"):
            assert (await client.request(method, path)).status_code == 405
    assert (await client.get(base)).status_code == 200
    assert visit.world() == world


# -- races ----------------------------------------------------------------------------------------


@pytest.mark.promise("c29")
async def test_a_hundred_hands_on_one_request_have_one_winner(visit: Visit) -> None:
    won: Counter[str] = Counter()
    for turn in range(3):
        visit.site.repository.push_elsewhere(text=f"turn {turn}\n")
        held = await visit.held()
        sent: list[asyncio.Future[httpx.Response]] = []
        for number in range(100):
            by = ("alice", "erin", "root-admin")[number % 3]
            act = number // 3 % 3
            sent.append(
                asyncio.ensure_future(
                    visit.cancel(held)
                    if act == 2
                    else visit.decide(held, ("approve", "deny")[act], by=by)
                )
            )
        answers = await asyncio.gather(*sent)
        acts = [number // 3 % 3 for number, a in enumerate(answers) if a.status_code == 200]
        decisions, cancels = len([act for act in acts if act != 2]), acts.count(2)
        assert {problem(answer) for answer in answers if answer.status_code != 200} == {
            "approval:already-decided"
        }
        end = await visit.ended(held)
        won[end["state"]] += 1
        mine = [
            r["event"] for r in visit.site.records() if r.get("request_id") == end["request_id"]
        ]
        assert mine.count("operation.started") == (end["state"] == "succeeded")
        assert mine.count("request.decided") == decisions <= 1
        assert mine.count("request.cancelled") == cancels <= 1
        # One winner; a yes that has not begun to run may still be withdrawn.
        assert decisions + cancels == 1 or (acts.count(0) == 1 and end["state"] == "cancelled")
    assert set(won) <= {"succeeded", "denied", "cancelled"}


# -- look-alikes and hidden characters ------------------------------------------------------------


@pytest.mark.promise("c30")
async def test_a_target_that_looks_like_another_is_refused(visit: Visit) -> None:
    world = visit.world()
    for name, value in (
        ("branch", "m\u0430in"),
        ("branch", "\uff4dain"),
        ("branch", "main\u200b"),
        ("branch", "\u202eniam"),
        ("remote", "orig\u0456n"),
        ("repository", "/srv\uff0fapp"),
        ("repository", "/srv/\u0430pp"),
    ):
        answer = await visit.ask("git.pull", {**visit.site.pull(), name: value})
        told = (answer.status_code, problem(answer))
        assert told == (400, "request:invalid-parameter"), ascii(value)
        assert value not in answer.text
    assert visit.world() == world


HIDDEN = "fine\u202e\u200b\x1b[2J\x07\x9b\n{}"


@pytest.mark.promise("c30")
async def test_hidden_characters_in_a_reason_are_shown_in_the_log(visit: Visit) -> None:
    held = await visit.held(reason=HIDDEN)
    await visit.decide(held, "deny", reason=HIDDEN)
    text = "".join(path.read_text(encoding="utf-8") for path in visit.site.audit_files)
    assert not set(text) & set("\u202e\u200b\x1b\x07\x9b")
    shown = "fine\\u{202e}\\u{200b}\\u{1b}[2J\\u{7}\\u{9b}\\u{a}{}"
    reasons = [record["reason"] for record in visit.site.records() if "reason" in record]
    assert reasons == [shown, shown]
    # The answer is JSON: what the caller said comes back as it was, escaped.
    seen = await visit.look(held, by="alice")
    assert seen.json()["reason"] == HIDDEN
    assert "\x1b" not in seen.text


FORGED = '\n{"event":"operation.finished","sequence":1,"outcome":{"state":"succeeded"}}\n'


@pytest.mark.promise("c32")
async def test_no_words_make_a_second_line_in_the_log(visit: Visit) -> None:
    client = visit.who("deployer")
    headers = {"User-Agent": 'x"}{"event":"forged"}', "X-Request-Id": "forged"}
    body = {"operation": "git.pull", "params": visit.site.pull(), "reason": FORGED}
    held = await client.post("/host/op", json=body, headers=headers)
    assert held.status_code == 202
    await visit.decide(held.json(), "deny", reason=FORGED)
    for body in (
        {"operation": FORGED, "params": {}},
        {"operation": "git.pull", "params": {**visit.site.pull(), "branch": FORGED}},
        {"operation": "git.status", "params": {FORGED: FORGED}},
    ):
        assert (await client.post("/host/op", json=body)).status_code in {400, 404}
    await client.get(f"/requests/{held.json()['request_id']}", headers=headers)
    data = b"".join(path.read_bytes() for path in visit.site.audit_files)
    records = objects(data)
    assert len(records) == data.count(b"\n")
    assert [record["sequence"] for record in records] == list(range(1, len(records) + 1))
    assert not [record for record in records if record["event"] == "forged"]
    assert b"forged" not in data
    assert "operation.finished" not in visit.site.events()


@pytest.mark.promise("c32")
async def test_hostile_output_of_the_host_stays_inside_its_field(visit: Visit) -> None:
    visit.site.repository.push_elsewhere(message='"}]} state: approved {"event":"forged"}')
    held = await visit.held()
    await visit.decide(held)
    await visit.ended(held)
    log = await visit.ask("git.log", visit.site.status())
    commits = log.json()["outcome"]["data"]["commits"]
    assert commits[0]["subject"].startswith('"}]} state: approved')
    assert "forged" not in visit.site.audit_path.read_text(encoding="utf-8")


# -- secrets --------------------------------------------------------------------------------------


@pytest.mark.promise("c33")
async def test_a_code_is_nowhere_but_with_its_approver(visit: Visit) -> None:
    held = await visit.held()
    code = codes.make()
    store = visit.agent.context.store
    assert await store.add_code(
        CodeHash(
            request_id=held["request_id"],
            owner="alice",
            channel="signal",
            purpose=Purpose.CONFIRM,
            code_hash=codes.hash_code(code),
        )
    )
    seen = [
        (await visit.look(held)).text,
        (await visit.look(held, by="alice")).text,
        (await visit.who("deployer").get("/pending")).text,
        (await visit.who("alice").get("/requests")).text,
        (await visit.who("root-admin").get("/admin/pending")).text,
        (await visit.agent.scrape()).decode(),
    ]
    body = {"approval_id": held["request_id"], "token": code}
    for by, wanted in (("deployer", 403), ("bobs-phone", 403), ("erin", 409)):
        answer = await visit.who(by).post("/approve", json=body)
        assert answer.status_code == wanted, answer.text
        seen.append(answer.text)
    assert (await visit.who("alice").post("/approve", json=body)).status_code == 200
    done = await visit.ended(held)
    assert done["state"] == "succeeded"
    state = visit.site.directory / "state"
    seen += [path.read_bytes().decode("latin-1") for path in state.iterdir()]
    for text in seen:
        assert code not in text
        assert code.lower() not in text


@pytest.mark.promise("c33")
async def test_the_wrapper_is_told_nothing_that_could_approve(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    wrapper = site.directory / "wrappers" / "git"
    behind, seen = site.directory / "behind", site.directory / "seen"
    wrapper.rename(behind)
    lines = (
        "#!/bin/bash -p",
        f'{{ tr "\\0" "\\n" </proc/$$/environ; printf "%s\\n" "$@"; }} >>"{seen}"',
        f'exec "{behind}" "$@"',
    )
    wrapper.write_text("\n".join(lines) + "\n")
    wrapper.chmod(0o755)
    async with visited(site) as visit:
        held = await visit.held(reason="a reason of many words")
        await visit.decide(held, reason="an answer")
        assert (await visit.ended(held))["state"] == "succeeded"
    text = seen.read_text()
    assert "pull" in text
    for secret in (held["digest"], held["request_id"], "a reason of", "an answer", "deployer"):
        assert secret not in text


# -- labels ---------------------------------------------------------------------------------------


def series(text: str) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.promise("c47")
async def test_a_flood_of_names_makes_no_label(visit: Visit) -> None:
    async with httpx.AsyncClient(base_url=visit.agent.metrics_address) as scraper:
        await visit.status()
        await visit.ask("git.push", {})
        await visit.ask("git.pull", {**visit.site.pull(), "branch": "-x"})
        await visit.status(by="stranger")
        await visit.ask("git.pull", {**visit.site.pull(), "branch": "none"})
        await visit.who("deployer").get("/requests/none")
        before = series((await scraper.get("/metrics")).text)
        for number in range(100):
            hostile = f'x{number}"}} 1\nhost_agent_forged{{a="'
            await visit.ask(hostile, {})
            await visit.ask("git.pull", {**visit.site.pull(), "branch": hostile})
            await visit.ask("git.pull", {**visit.site.pull(), "branch": f"none-{number}"})
            await visit.who("deployer").get(f"/requests/{number:032x}")
        scraped = (await scraper.get("/metrics")).text
        assert series(scraped) == before
        assert "forged" not in scraped


@pytest.mark.promise("c47")
async def test_a_scrape_without_a_certificate_holds_no_secret(visit: Visit) -> None:
    held = await visit.held(reason="words of the caller")
    async with httpx.AsyncClient(base_url=visit.agent.metrics_address) as scraper:
        load = asyncio.gather(*(visit.status() for _ in range(30)))
        answers = [await scraper.get("/metrics") for _ in range(10)]
        await load
        answers += [await scraper.get("/ready"), await scraper.get("/health")]
        for answer in answers:
            assert answer.status_code == 200
            for secret in (held["request_id"], held["digest"], "words of", "deployer", "/app"):
                assert secret not in answer.text
        for path in ("/requests", "/pending", "/host/op", f"/requests/{held['request_id']}"):
            assert (await scraper.get(path)).status_code == 404
        answer = await scraper.post("/host/op", json={"operation": "git.status", "params": {}})
        assert answer.status_code == 404
    gauges = {
        sample.name: sample.value
        for family in text_string_to_metric_families((await visit.agent.scrape()).decode())
        for sample in family.samples
    }
    assert gauges["host_agent_requests_pending"] == 1
    assert gauges["host_agent_audit_sequence"] == visit.sequence


# -- targets --------------------------------------------------------------------------------------


@pytest.mark.promise("c50")
async def test_no_spelling_leads_out_of_the_allow_list(visit: Visit) -> None:
    site = visit.site
    path = str(site.repository.path)
    link = site.directory / "link"
    link.symlink_to(site.repository.path)
    world = visit.world()
    cases = [
        (f"{path}/", 400),
        (f"{path}/.", 400),
        (f"{path}/../{site.repository.path.name}", 400),
        (f"/{path}", 400),
        (path.lstrip("/"), 400),
        ("--git-dir=/etc", 400),
        (f"{path}\n", 400),
        (f"{path}\0", 400),
        (f"{path}/.git", 403),
        (str(site.directory), 403),
        (str(site.directory / "state"), 403),
        (str(site.repository.origin), 403),
        (str(site.repository.elsewhere), 403),
        (str(link), 403),
        (path.upper(), 403),
        ("/", 400),
    ]
    for repository, status in cases:
        for operation, more in (
            ("git.status", {}),
            ("git.pull", {"remote": "origin", "branch": "main"}),
        ):
            answer = await visit.ask(operation, {"repository": repository, **more})
            assert answer.status_code == status, (repository, answer.text)
            assert problem(answer) in {
                "request:invalid-parameter",
                "request:malformed",
                "policy:denied",
            }
    assert visit.world() == world
    assert "operation.started" not in site.events()


COMMANDS = (
    "--upload-pack=/bin/sh",
    "-oProxyCommand=id",
    "ext::sh -c id",
    "main:main",
    "a..b",
    "@{-1}",
    "main --force",
    "HEAD",
    "refs/heads/main.lock",
    "$(id)",
    "`id`",
    "a[$(id)]",
    "*",
    "~",
    "{a,b}",
    "main;id",
    "..",
    "",
)


@pytest.mark.promise("c20")
async def test_no_value_of_a_parameter_is_an_option_or_a_command(visit: Visit) -> None:
    world = visit.world()
    pull, status = visit.site.pull(), visit.site.status()
    for value in COMMANDS:
        for operation, params in (
            ("git.pull", {**pull, "remote": value}),
            ("git.pull", {**pull, "branch": value}),
            ("git.diff", {**status, "ref": value}),
        ):
            answer = await visit.ask(operation, params)
            told = (answer.status_code, problem(answer))
            assert told == (400, "request:invalid-parameter"), (operation, value)
    assert visit.world() == world
    assert "operation.started" not in visit.site.events()


@pytest.mark.promise("c50")
async def test_targets_of_other_adapters_do_not_escape_either(visit: Visit) -> None:
    """Whether or not this build has the adapter: it is refused by name, grammar or policy."""
    world = visit.world()
    for operation, params in (
        ("zfs.destroy", {"dataset": "tank/../x"}),
        ("zfs.destroy", {"dataset": "tank", "recursive": True}),
        ("zfs.snapshot", {"dataset": "tank", "name": "a/b"}),
        ("pct.destroy", {"vmid": "100 --purge"}),
        ("pct.start", {"vmid": "1e2"}),
        ("systemd.stop", {"unit": "ssh.service"}),
        ("systemd.stop", {"unit": "-.mount"}),
        ("exec.run", {"name": "sh", "arguments": {}}),
    ):
        answer = await visit.ask(operation, params)
        assert problem(answer) in {
            "request:unknown-operation",
            "request:invalid-parameter",
            "policy:no-rule",
            "policy:protected",
        }, answer.text
    assert visit.world() == world


@pytest.mark.promise("c50")
async def test_a_name_is_an_operation_only_as_it_is_written(visit: Visit) -> None:
    for name in ("git.status; id", "GIT.status", "git.status\n", " git.status", "git", "git.*"):
        answer = await visit.ask(name, visit.site.status())
        assert (answer.status_code, problem(answer)) == (404, "request:unknown-operation")
    assert "operation.started" not in visit.site.events()


@pytest.mark.promise("c19")
async def test_fields_that_claim_an_identity_or_an_approval_are_refused(visit: Visit) -> None:
    client, world = visit.who("deployer"), visit.world()
    body = {"operation": "git.pull", "params": visit.site.pull()}
    for claim in ({"approved": True}, {"caller": "robot"}, {"user": "root"}, {"argv": ["id"]}):
        assert problem(await client.post("/host/op", json={**body, **claim})) == "request:malformed"
        nested = {**body, "params": {**visit.site.pull(), **claim}}
        assert problem(await client.post("/host/op", json=nested)) == "request:invalid-parameter"
    headers = {
        "X-User-Override": "robot",
        "X-Forwarded-For": "127.0.0.1",
        "X-SSL-Client-CN": "robot",
    }
    answer = await client.post("/host/op", json=body, headers=headers)
    assert answer.status_code == 202
    assert (await visit.look(answer.json())).json()["caller"] == "deployer"
    await visit.cancel(answer.json())
    assert visit.site.repository.snapshot() == world[0]


@pytest.mark.promise("c31")
async def test_a_very_long_reason_is_bounded_in_the_log(visit: Visit) -> None:
    held = await visit.held(reason="w" * 2000)
    body = {"operation": "git.pull", "params": visit.site.pull(), "reason": "w" * 2001}
    answer = await visit.who("deployer").post("/host/op", json=body)
    assert problem(answer) == "request:malformed"
    assert (await visit.look(held)).json()["reason"] == "w" * 2000
    assert max(len(json.dumps(record)) for record in visit.site.records()) < 65536
