"""The OpenAPI document is whole, refers only to what it has, and knows every route and status."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

from host_agent.api.app import create_router
from host_agent.api.openapi import document, document_bytes
from host_agent.api.route import Services
from host_agent.api.routes import ROUTES
from host_agent.errors import BY_CODE
from host_agent.operations import CATALOGUE
from host_agent.requests.model import State


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_reference_has_its_schema() -> None:
    described = document(CATALOGUE)
    schemas = described["components"]["schemas"]
    found = set(references(described))
    assert found
    assert all(name.removeprefix("#/components/schemas/") in schemas for name in found)


def test_every_route_of_the_application_is_described_and_no_other() -> None:
    app = create_router(cast("Services", SimpleNamespace(pipeline=None)))
    served = {
        (method, rule.rule.replace("<", "{").replace(">", "}"))
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
    }
    described = {
        (method.upper(), path)
        for path, methods in document(CATALOGUE)["paths"].items()
        for method in methods
    }
    # HEAD is GET without the body (RFC 9110, section 9.3.2), and no operation of its own.
    heads = {("HEAD", path) for method, path in served if method == "GET"}
    assert served - heads == described == {(route.method, route.path) for route in ROUTES}
    assert heads <= served


def test_every_operation_can_be_asked_for() -> None:
    described = document(CATALOGUE)
    typed = described["components"]["schemas"]["TypedAsk"]
    names = {ask["$ref"].rpartition("/")[2] for ask in typed["oneOf"]}
    assert names == {spec.name for spec in CATALOGUE}
    told = typed["discriminator"]
    assert told["propertyName"] == "operation"
    assert {name: ref.rpartition("/")[2] for name, ref in told["mapping"].items()} == {
        name: name for name in names
    }
    forms = described["components"]["schemas"]["Ask"]["anyOf"]
    assert [form["$ref"].rpartition("/")[2] for form in forms] == ["TypedAsk", "OlderAsk"]
    assert described["components"]["schemas"]["git.status"]["additionalProperties"] is False


def test_the_document_says_where_an_agent_is() -> None:
    (server,) = document(CATALOGUE)["servers"]
    assert server["url"].format(host="web-1", port=8443) == "https://web-1:8443"
    assert {name: value["default"] for name, value in server["variables"].items()} == {
        "host": "localhost",
        "port": "8443",
    }


def test_every_status_of_a_route_is_described() -> None:
    paths = document(CATALOGUE)["paths"]
    for route in ROUTES:
        responses = paths[route.path][route.method.lower()]["responses"]
        assert {int(status) for status in responses} == route.statuses


def test_codes_and_states_are_the_tables() -> None:
    schemas = document(CATALOGUE)["components"]["schemas"]
    assert schemas["Problem"]["properties"]["code"] == {"$ref": "#/components/schemas/Code"}
    assert set(schemas["Code"]["enum"]) == set(BY_CODE)
    assert set(schemas["State"]["enum"]) == {state.value for state in State}


def test_the_bytes_are_the_document() -> None:
    assert json.loads(document_bytes(CATALOGUE)) == document(CATALOGUE)
