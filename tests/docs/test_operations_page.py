"""The operations page is the catalogue: every operation, every parameter, and nothing else."""

import re

from host_agent.operations import CATALOGUE
from tests.support.reference_pages import REPOSITORY, operations_page

PAGE = REPOSITORY / "docs" / "reference" / "operations.md"


def test_the_page_is_what_the_catalogue_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == operations_page(), "run `make docs`"


def test_every_operation_has_a_heading() -> None:
    headings = re.findall(r"^### `(.+)`$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [spec.name for spec in CATALOGUE]


def test_every_parameter_has_its_row_in_the_order_of_the_older_form() -> None:
    sections = re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    for spec, section in zip(CATALOGUE, sections, strict=True):
        rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        assert rows == list(spec.parameters.positional) == list(spec.parameters.model_fields)


def test_every_operation_with_data_has_its_form_told() -> None:
    page = PAGE.read_text(encoding="utf-8")
    told = set(re.findall(r"^- `(\w+\.\w+)`: ", page, re.MULTILINE))
    assert told == {spec.name for spec in CATALOGUE if spec.parse is not None}
