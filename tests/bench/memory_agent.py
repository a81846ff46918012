"""An agent whose runner answers from memory: `python -m tests.bench.memory_agent CONFIG`.

Everything else is the agent's own: TLS, policy, the store and the audit log on disk.
"""

import asyncio
import gc
import hashlib
import signal
import sys
from pathlib import Path

from host_agent.agent.agent import Agent
from host_agent.operations.catalogue import Invocation, Output
from tests.support.users import AsDeclared

STATE = """\
repository 65024:2180235:1795216853
git_directory 65024:2180236:1795216853
head 3b50c8485702d90f15e83be48d2c70c48c355330
head_ref refs/heads/main
dirty no
target b7f88d12d1543ee285e5187fccd7dcc1ade9ad90
file_count 1
file A\tVERSION
"""
"""What the wrapper says of a repository that a switch is asked for in."""


class AnswersFromMemory(AsDeclared):
    """A runner that starts no process."""

    async def run(
        self, invocation: Invocation, *, unix_user: str | None, deadline: float | None = None
    ) -> Output:
        """Return the one state there is."""
        return Output(
            exit_code=0,
            stdout=STATE,
            stdout_bytes=len(STATE),
            stdout_sha256=hashlib.sha256(STATE.encode()).hexdigest(),
        )


async def serve(config: Path) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Agent(config, runner=AnswersFromMemory()) as agent:
        gc.freeze()  # as `host-agent serve` does
        sys.stderr.write(f"serving on {agent.address}\n")
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
