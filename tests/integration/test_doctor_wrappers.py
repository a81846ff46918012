"""The argument by which the doctor tries wrappers starts nothing, whichever wrapper gets it."""

import subprocess
from pathlib import Path

import pytest

from host_agent.host.doctor.host import REFUSED_ARGUMENT
from tests.support.pages import REPOSITORY

WRAPPERS = sorted(filter(Path.is_file, (REPOSITORY / "wrappers").iterdir()))


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda path: path.name)
def test_every_wrapper_refuses_it_before_it_does_anything(wrapper: object) -> None:
    done = subprocess.run(
        [str(wrapper), REFUSED_ARGUMENT], env={}, capture_output=True, text=True, check=False
    )

    # 69: the tool is not installed here, which is told before any argument is looked at.
    assert done.returncode in (64, 69)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
