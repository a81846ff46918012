"""The page on client settings and bundles names every key and every way to refuse."""

import re

from host_agent.cli import connection_settings
from host_agent.client import bundle
from tests.support.pages import REPOSITORY

PAGE = (REPOSITORY / "docs" / "reference" / "client.md").read_text(encoding="utf-8")


def test_the_page_has_the_keys_of_a_bundle_and_no_others() -> None:
    section = PAGE[PAGE.index("## Bundle") :]
    table = section[section.index("| key |") :].split("\n\n", 1)[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)) == set(bundle.KEYS)
    assert re.findall(r"^\| `([a-z_]+)` \|.*\*\*yes\*\*", table, re.MULTILINE) == ["private_key"]
    assert f"{bundle.MAX_BYTES // 1024} KiB" in section
    assert f"1 to {bundle.MAX_URLS} of" in section


def test_the_page_has_every_setting() -> None:
    for key in connection_settings.KEYS:
        assert f"`--{key}`" in PAGE
        assert f"`HOST_AGENT_{key.upper()}`" in PAGE
    for name in (connection_settings.HOST_VARIABLE, connection_settings.DEFAULT_KEY, "--host NAME"):
        assert f"`{name}`" in PAGE
