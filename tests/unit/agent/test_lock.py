"""One agent for one state directory."""

from pathlib import Path

import pytest

from host_agent.agent.lock import AgentLock
from host_agent.errors import StoreUnavailableError


def test_the_directory_is_made_private_and_the_lock_comes_back(tmp_path: Path) -> None:
    state = tmp_path / "state"
    lock = AgentLock(state)
    lock.take()
    assert state.stat().st_mode & 0o777 == 0o700
    lock.release()
    lock.release()
    again = AgentLock(state)
    again.take()
    again.release()


def test_a_second_agent_is_refused_and_the_first_keeps_its_lock(tmp_path: Path) -> None:
    first, second = AgentLock(tmp_path), AgentLock(tmp_path)
    first.take()
    with pytest.raises(StoreUnavailableError, match="Another agent"):
        second.take()
    second.release()
    with pytest.raises(StoreUnavailableError, match="Another agent"):
        AgentLock(tmp_path).take()
    first.release()


@pytest.mark.promise("c43")
def test_a_lock_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agent.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailableError, match="cannot be used"):
        AgentLock(tmp_path).take()
    assert not (tmp_path / "elsewhere").exists()
