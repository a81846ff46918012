"""The served interface against its own description: schemathesis, as three kinds of identity.

Every status is one that the document names, no body breaks its schema, nothing that breaks a
schema is accepted, and nothing makes the agent fail.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE
from tests.support.site import Served, make_site

LIMITS = """
[limits]
asks_per_second = 100000
ask_burst = 100000
decisions_per_second = 100000
decision_burst = 100000
held_off_after = 1000000
[approvals]
max_pending = 100000
max_pending_per_caller = 100000
"""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)
"""All but "valid data is accepted": grammars and opaque cursors say more than a schema can."""


@pytest.mark.promise("c19")
@pytest.mark.parametrize("cn", ["deployer", "alice", "root-admin"])
def test_the_served_interface_is_the_described_one(tmp_path: Path, cn: str) -> None:
    site = make_site(tmp_path / "site", extra=LIMITS)
    leaf = site.client(cn)
    both = tmp_path / "client.pem"
    both.touch(mode=0o600)
    both.write_bytes(leaf.certificate_path.read_bytes() + leaf.key_path.read_bytes())
    with Served(site) as served:
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                "run",
                f"{served.url}/openapi.json",
                *("--request-cert", both, "--tls-verify", site.pki.ca_path),
                *(
                    "--checks",
                    ",".join(CHECKS),
                    "--max-examples",
                    "15",
                    "--seed",
                    "1",
                    "--no-color",
                ),
                *("--exclude-path", "/events"),  # it has no end
                *("--phases", "coverage,fuzzing", "--warnings", "off"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        assert served.stop() == 0
    assert "operation.started" not in [
        record["event"] for record in site.records() if record.get("caller") != "deployer"
    ]
