"""Clients that others' generators make of the OpenAPI document compile, and get on with an agent.

The generators come from the package registries, with fixed versions; where none answers, the tests
are skipped.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Leaf
from tests.support.registries import cached, run
from tests.support.site import Served, Site, make_site

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/reference/openapi.json"
PYTHON_PARTS = ("openapi-python-client==0.29.1", "mypy==2.4.1", "httpx==0.28.1")
NPM_PARTS = (
    "openapi-typescript@7.13.0",
    "openapi-fetch@0.17.0",
    "typescript@5.9.3",
    "@types/node@20.9.5",
    "undici@6.29.1",
)
PULL = {"remote": "origin", "branch": "main"}

PYTHON_USE = """
import json, ssl, sys
from agent_client import Client
from agent_client.api.default import operations, show, submit
from agent_client.models import (
    Done, GitPull, GitPullParams, GitStatus, GitStatusParams, Held, OperationList, OperationsFormat,
    Problem, Ran, Request, State, ToolList, Verdict,
)

url, repository, ca, *leaves = sys.argv[1:]


def client(cert: str, key: str) -> Client:
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(cert, key)
    return Client(base_url=url, verify_ssl=context)


deployer, watcher = client(*leaves[:2]), client(*leaves[2:])
pull = GitPull(
    operation="git.pull",
    params=GitPullParams(repository=repository, remote="origin", branch="main"),
)

ran = submit.sync_detailed(
    client=deployer,
    body=GitStatus(operation="git.status", params=GitStatusParams(repository=repository)),
)
assert ran.status_code == 200 and isinstance(ran.parsed, Ran), ran
assert ran.parsed.state is Done.SUCCEEDED and ran.parsed.outcome.exit_code == 0

held = submit.sync_detailed(client=deployer, body=pull)
assert held.status_code == 202 and isinstance(held.parsed, Held), held
shown = show.sync(held.parsed.request_id, client=deployer)
assert isinstance(shown, Request) and shown.state is State.PENDING
assert shown.approvals.needed == 1 and isinstance(shown.preview_sha256, str)
assert isinstance(shown.deliveries, list) and shown.expires_at > shown.created_at

refused = submit.sync_detailed(client=watcher, body=pull)
assert refused.status_code == 403 and isinstance(refused.parsed, Problem), refused

listed = operations.sync(client=deployer)
assert isinstance(listed, OperationList), listed
assert {one.verdict for one in listed.operations} <= set(Verdict)
assert all(one.summary for one in listed.operations)
tools = operations.sync(client=deployer, format_=OperationsFormat.MCP)
assert isinstance(tools, ToolList) and len(tools.tools) == len(listed.operations), tools
codes = [ran.status_code, held.status_code, refused.status_code]
print(json.dumps({"statuses": codes, "code": str(refused.parsed.code)}))
"""

TYPESCRIPT_USE = """
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import { Agent, fetch as through } from "undici";
import type { components, paths } from "./schema.js";

const [url, repository, ca, ...leaves] = process.argv.slice(2) as string[];
type Held = components["schemas"]["Held"];

function client(cert: string, key: string) {
  const [ours, secret, authority] = [cert, key, ca!].map((path) => readFileSync(path));
  const dispatcher = new Agent({ connect: { cert: ours, key: secret, ca: authority } });
  const ask = async (request: Request): Promise<Response> => {
    const body = request.body === null ? undefined : await request.text();
    const headers = Object.fromEntries(request.headers);
    const sent = { method: request.method, headers, body, dispatcher };
    return (await through(request.url, sent)) as unknown as Response;
  };
  return createClient<paths>({ baseUrl: url!, fetch: ask });
}

function demand(is: boolean, what: unknown): void {
  if (!is) throw new Error(JSON.stringify(what));
}

const [deployer, watcher] = [client(leaves[0]!, leaves[1]!), client(leaves[2]!, leaves[3]!)];
const pull: components["schemas"]["git.pull"] = {
  operation: "git.pull",
  params: { repository: repository!, remote: "origin", branch: "main" },
};

const ran = await deployer.POST("/host/op", {
  body: { operation: "git.status", params: { repository: repository! } },
});
demand(ran.response.status === 200, ran.error);

const held = await deployer.POST("/host/op", { body: pull });
demand(held.response.status === 202, held.error);
const { request_id } = held.data as Held;
const shown = await deployer.GET("/requests/{request_id}", { params: { path: { request_id } } });
demand(shown.data?.state === "pending", shown.error);
demand(shown.data?.approvals.needed === 1 && shown.data.deliveries !== undefined, shown.data);

const refused = await watcher.POST("/host/op", { body: pull });
demand(refused.response.status === 403, refused.data);

const statuses = [ran, held, refused].map((one) => one.response.status);
console.log(JSON.stringify({ statuses, code: refused.error?.code }));
process.exit(0);
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


@pytest.fixture
def served(site: Site) -> Iterator[Served]:
    with Served(site) as served:
        yield served


def arguments(site: Site, served: Served) -> list[str]:
    """Return what a program that uses a client is told."""
    leaves: list[Leaf] = [site.client("deployer"), site.client("watcher")]
    files = [str(path) for leaf in leaves for path in (leaf.certificate_path, leaf.key_path)]
    return [served.url, str(site.repository.path), str(site.pki.ca_path), *files]


def require_answers(printed: str, site: Site) -> None:
    """Look at what a client got, and that what was refused or held has not run."""
    assert json.loads(printed) == {"statuses": [200, 202, 403], "code": "policy:read-only"}
    assert [one["operation"] for one in site.records() if one["event"] == "operation.started"] == [
        "git.status"
    ]


def test_a_generated_python_client_compiles_and_gets_on(
    site: Site, served: Served, tmp_path: Path
) -> None:
    pip = ["venv/bin/python", "-m", "pip", "install", "--quiet", *PYTHON_PARTS]
    tools = cached("python", PYTHON_PARTS, [[sys.executable, "-m", "venv", "venv"], pip])
    python = str(tools / "venv/bin/python")  # its scripts know the directory that they came into
    (tmp_path / "generator.yml").write_text("post_hooks: []\n")
    generate = [python, "-m", "openapi_python_client", "generate", "--fail-on-warning"]
    where = ["--path", str(DOCUMENT), "--output-path", "agent_client", "--meta", "none"]
    run([*generate, *where, "--config", "generator.yml"], tmp_path)
    (tmp_path / "use.py").write_text(PYTHON_USE)
    run([python, "-m", "mypy", "use.py", "agent_client"], tmp_path)
    require_answers(run([python, "use.py", *arguments(site, served)], tmp_path), site)


def test_a_generated_typescript_client_compiles_and_gets_on(
    site: Site, served: Served, tmp_path: Path
) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", *NPM_PARTS]
    tools = cached("typescript", NPM_PARTS, [["npm", "init", "--yes"], install])
    (tmp_path / "node_modules").symlink_to(tools / "node_modules")
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    (tmp_path / "use.ts").write_text(TYPESCRIPT_USE)
    programs = tmp_path / "node_modules" / ".bin"
    run([programs / "openapi-typescript", DOCUMENT, "-o", "schema.d.ts"], tmp_path)
    strict = ["--strict", "--noUncheckedIndexedAccess", "--target", "es2022"]
    modules = ["--module", "nodenext", "--moduleResolution", "nodenext", "--skipLibCheck"]
    run([programs / "tsc", *strict, *modules, "use.ts", "schema.d.ts"], tmp_path)
    require_answers(run(["node", "use.js", *arguments(site, served)], tmp_path), site)
