"""What of `wrappers/` the built package has: the wrappers, not what they are made from."""  # noqa: INP001

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface[Any]):
    """Adds every wrapper to the data of the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Name each file of the directory; the directory of parts is none."""
        for path in (Path(self.root) / "wrappers").iterdir():
            if path.is_file():
                build_data["shared_data"][str(path)] = f"share/host-agent/wrappers/{path.name}"
