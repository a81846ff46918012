"""A terminal's keys one by one, and the terminal as it was before on every way out."""

import codecs
import contextlib
import re
import signal
import termios
from collections.abc import Iterator
from typing import Final

UP, DOWN, PAGE_UP, PAGE_DOWN = "up", "down", "page up", "page down"
ENTER, BACKSPACE, ESCAPE, END = "enter", "backspace", "escape", "end of input"
"""Keys that are no characters; every other key is the one character that it types."""

_CONTROL: Final = {
    "\r": ENTER,
    "\n": ENTER,
    "\x7f": BACKSPACE,
    "\x08": BACKSPACE,
    "\x04": END,
}
_SEQUENCES: Final = {
    "\x1b[A": UP,
    "\x1bOA": UP,
    "\x1b[B": DOWN,
    "\x1bOB": DOWN,
    "\x1b[5~": PAGE_UP,
    "\x1b[6~": PAGE_DOWN,
}
_WHOLE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[ -~])")
_BEGUN = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|O)?")
_LONGEST_SEQUENCE = 32
_CHARACTERS: Final = 6
"""Where tcgetattr has the control characters, after the modes and speeds."""
_LOCAL_MODES: Final = 3


class Keys:
    """Makes keys of bytes as they come. What no key is known for is passed over whole.

    So the end of a sequence that some terminal sends is never taken for a letter.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """Return the keys that `data` completes."""
        text, self._rest = self._rest + self._decoder.decode(data), ""
        keys: list[str] = []
        while text:
            if text[0] != "\x1b":
                keys += _key(text[0])
                text = text[1:]
                continue
            whole = _WHOLE.match(text)
            if whole is not None:
                keys += [_SEQUENCES[whole[0]]] if whole[0] in _SEQUENCES else []
                text = text[whole.end() :]
            elif _BEGUN.fullmatch(text) and len(text) <= _LONGEST_SEQUENCE:
                self._rest, text = text, ""
            else:
                keys.append(ESCAPE)
                text = text[1:]
        return keys

    def settle(self) -> list[str]:
        """Return what the key was that has begun a sequence and sent no more: Escape by itself."""
        rest, self._rest = self._rest, ""
        return [ESCAPE] if rest else []

    @property
    def is_unsettled(self) -> bool:
        """Return whether a sequence has begun."""
        return bool(self._rest)


def _key(character: str) -> list[str]:
    if character in _CONTROL:
        return [_CONTROL[character]]
    return [character] if character.isprintable() else []


@contextlib.contextmanager
def by_key(descriptor: int) -> Iterator[None]:
    r"""Have a terminal give keys as they are pressed, unseen, until the end of the block.

    Ctrl-C still interrupts; stopping and Ctrl-\ are off, as they would leave it like this.
    """
    before = termios.tcgetattr(descriptor)
    mode = termios.tcgetattr(descriptor)
    mode[_LOCAL_MODES] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
    for name, value in (
        (termios.VMIN, b"\x01"),
        (termios.VTIME, b"\x00"),
        (termios.VSUSP, b"\x00"),
        (termios.VQUIT, b"\x00"),
    ):
        mode[_CHARACTERS][name] = value
    stopped = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        termios.tcsetattr(descriptor, termios.TCSANOW, mode)
        forget_typed(descriptor)
        yield
    finally:
        with contextlib.suppress(termios.error):  # it is gone, and with it its modes
            # What was typed and not read is not for the shell.
            termios.tcflush(descriptor, termios.TCIFLUSH)
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
        signal.signal(signal.SIGTSTP, stopped)


def forget_typed(descriptor: int) -> None:
    """Drop what was typed and not read yet."""
    with contextlib.suppress(termios.error):
        termios.tcflush(descriptor, termios.TCIFLUSH)
