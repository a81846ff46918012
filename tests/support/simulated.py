"""`host-agent simulate` as another process, and what its callers need to reach it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.patience import PATIENCE

PROGRAM = Path(sys.executable).with_name("host-agent")


class Simulated:
    """A context manager: inside it a simulation serves, whose approver answers by `options`."""

    def __init__(self, *options: str) -> None:
        self._options = options

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [PROGRAM, "simulate", "--json", *self._options], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.__exit__(None, None, None)
            message = "the simulation did not start"
            raise AssertionError(message)
        told = json.loads(line)
        self.home = Path(told["home"])
        self.identities: dict[str, dict[str, str]] = told["identities"]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise

    def environment(self, name: str = "deployer") -> dict[str, str]:
        """Return the environment of a program that is the identity `name`, and nothing of ours."""
        settings = {
            f"HOST_AGENT_{key.upper()}": value for key, value in self.identities[name].items()
        }
        path = f"{PROGRAM.parent}:{os.defpath}"
        return {"PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8", **settings}
