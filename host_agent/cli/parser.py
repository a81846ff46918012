"""The parser of the command line and of each command: whole names only, errors of our own."""

import argparse
from typing import NoReturn

from host_agent.errors import UsageError


class Parser(argparse.ArgumentParser):
    """An argument parser that takes whole option names only, and raises instead of exiting 2."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Raise the usage error that `message` describes.

        Raises:
            UsageError: always.
        """
        sentence = message[:1].upper() + message[1:]
        raise UsageError(f"{sentence}. See `{self.prog} --help`.")
