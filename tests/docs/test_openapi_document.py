"""The document in the reference is the one that the agent answers."""

import json

from host_agent.api.openapi import document_bytes
from host_agent.operations import CATALOGUE
from tests.support.pages import REPOSITORY
from tests.support.reference_pages import openapi_document

PAGE = REPOSITORY / "docs/reference/openapi.json"


def test_the_document_in_the_reference_is_what_the_agent_answers() -> None:
    assert PAGE.read_text(encoding="utf-8") == openapi_document(), "make docs"
    assert json.loads(openapi_document()) == json.loads(document_bytes(CATALOGUE))
