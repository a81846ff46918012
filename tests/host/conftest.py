"""One booted machine with the agent installed, for all tests of this tier in their order."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.installed import UNIT, Host, furnish, install_agent, put_program
from tests.support.machine import Machine, alone, why_no_shared_packages, why_not

REASON = why_not()
_FIRST = ("test_package.py", "test_bootstrap.py")
"""Before the one machine is booted: those with machines of their own, which have its addresses.

Then, before the agent is installed on it: those that need it bare.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this tier, and skip it with the reason where no machine can be."""
    items.sort(key=_turn)
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.host)
            item.add_marker(pytest.mark.serial)
            item.add_marker(pytest.mark.timeout(900))  # the first one boots the machine
            if REASON is not None:
                item.add_marker(pytest.mark.skip(reason=f"host tests: {REASON}"))


def _turn(item: pytest.Item) -> int:
    is_ours = Path(__file__).parent in item.path.parents
    return _FIRST.index(item.path.name) if is_ours and item.path.name in _FIRST else len(_FIRST)


@pytest.fixture(scope="session")
def cache() -> Iterator[Path]:
    with alone() as directory:
        yield directory


@pytest.fixture(scope="session")
def machine(cache: Path) -> Iterator[Machine]:
    reason = why_no_shared_packages()
    if reason is not None:
        pytest.skip(f"host tests: {reason}")
    with Machine(cache) as booted:
        yield booted


@pytest.fixture(scope="session")
def host(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    put_program(machine)
    furnish(machine)
    installed = install_agent(machine)
    machine.must("systemctl", "enable", "--now", UNIT)
    served = Host(machine, tmp_path_factory.mktemp("people"), installed)
    yield served
    served.leave()
