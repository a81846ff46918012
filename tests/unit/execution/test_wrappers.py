"""Wrapper files: what they are, and whose."""

from pathlib import Path

import pytest

from host_agent.errors import AdapterUnavailableError
from host_agent.execution.wrappers import WrapperDigests


@pytest.fixture
def wrapper(tmp_path: Path) -> Path:
    file = tmp_path / "zfs-list"
    file.write_text("#!/bin/bash -p\n")
    file.chmod(0o755)
    return file


def test_a_wrapper_has_the_hash_of_its_bytes(wrapper: Path) -> None:
    digests = WrapperDigests(wrapper.parent)
    before = digests.digest(wrapper.name)
    assert before == digests.digest(wrapper.name)
    wrapper.write_text("#!/bin/bash -p\n# more\n")
    assert digests.digest(wrapper.name) != before


@pytest.mark.promise("c35")
@pytest.mark.parametrize("mode", [0o757, 0o777, 0o775])
def test_a_wrapper_that_others_may_write_is_not_run(wrapper: Path, mode: int) -> None:
    digests = WrapperDigests(wrapper.parent)
    digests.digest(wrapper.name)
    wrapper.chmod(mode)
    with pytest.raises(AdapterUnavailableError, match="can be changed by others"):
        digests.digest(wrapper.name)


@pytest.mark.promise("c35")
def test_a_group_may_write_a_wrapper_that_has_no_more_rights(wrapper: Path) -> None:
    wrapper.chmod(0o775)
    assert WrapperDigests(wrapper.parent, group_may_write=True).digest(wrapper.name)
    wrapper.chmod(0o757)
    with pytest.raises(AdapterUnavailableError):
        WrapperDigests(wrapper.parent, group_may_write=True).digest(wrapper.name)


@pytest.mark.promise("c35")
@pytest.mark.parametrize("spoil", ["remove", "link", "directory", "plain"])
def test_what_is_no_program_is_not_run(wrapper: Path, spoil: str) -> None:
    if spoil == "plain":
        wrapper.chmod(0o644)
    else:
        wrapper.rename(wrapper.with_name("other"))
        if spoil == "link":
            wrapper.symlink_to("other")
        elif spoil == "directory":
            wrapper.mkdir()
    with pytest.raises(AdapterUnavailableError):
        WrapperDigests(wrapper.parent).digest(wrapper.name)
