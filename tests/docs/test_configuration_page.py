"""The configuration page is the schema: every key of every table, and nothing else."""

import re

from pydantic import BaseModel

from host_agent.config import Config
from host_agent.config.checking import table_of
from tests.support.reference_pages import CONFIGURATION_TABLES, REPOSITORY, configuration_page

PAGE = REPOSITORY / "docs" / "reference" / "configuration.md"


def test_the_page_is_what_the_models_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == configuration_page(), "run `make docs`"


def tables(model: type[BaseModel], prefix: str = "") -> dict[str, type[BaseModel]]:
    """Return every table below `model` by its dotted name."""
    found: dict[str, type[BaseModel]] = {}
    for name, field in model.model_fields.items():
        inner = table_of(field.annotation)
        if inner is not None:
            found |= {f"{prefix}{name}": inner, **tables(inner, f"{prefix}{name}.")}
    return found


def test_every_table_has_a_place_on_the_page() -> None:
    named = {heading.strip("[]"): model for heading, model in CONFIGURATION_TABLES.items()}
    assert named == tables(Config)


def test_every_key_has_a_heading() -> None:
    headings = set(re.findall(r"^### `(.+)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    named = tables(Config)
    keys = {f"{table}.{key}" for table, model in named.items() for key in model.model_fields}
    assert headings == keys - set(named)
