"""A page that is walked through for real: its commands run, and print what the page says.

Blocks of a page, by the info string of their fence:

- `console`: lines that begin with `$ ` are run one after the other in one directory; what follows
  up to the next one is what they print. A line of `...` stands for any lines.
- `console agent`: one command that serves until it is interrupted, and what it says by then.
- `toml NAME`: a file of that name.

Hexadecimal words, times and durations are compared by their form; the same word in the page is the
same word in what is printed, and can be a part of a later command.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.patience import PATIENCE
from tests.support.terminal import Terminal

PROMPT = "$ "
QUESTION = "Type yes to approve: "
START_SECONDS = PATIENCE
_FENCE = re.compile(r"^```([a-z]+)(?: ([^\n`]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_FORMS: Mapping[str, str] = {
    "instant": r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z",
    "day": r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
    "span": r"(?:[0-9]+ min [0-9]+ s|[0-9]+ ms|[0-9]+ min|[0-9]+(?:\.[0-9])? s)",
    "identity": r"[0-9]+:[0-9]+:[0-9]+",
}
"""What is compared by its form only: times, and device, inode and birth of a file."""

_TOKEN = re.compile(
    "|".join(f"(?P<{name}>{form})" for name, form in _FORMS.items())
    + r"|(?P<word>(?<![0-9A-Za-z])(?=[0-9a-f]*[0-9])[0-9a-f]{7,64}(?![0-9A-Za-z]))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block: its language, the rest of its info string, and its text."""

    language: str
    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command of a `console` block and what it prints."""

    command: str
    output: str


def blocks(page: str) -> list[Block]:
    """Return every fenced block of `page` in its order."""
    return [
        Block(language=found[1], name=found[2] or "", text=found[3])
        for found in _FENCE.finditer(page)
    ]


def program(page: str, name: str) -> str:
    """Return the Python program that a page prints under a name."""
    return next(b.text for b in blocks(page) if b.language == "python" and b.name == name)


def steps(block: Block) -> Iterator[Step]:
    """Yield the commands of a `console` block; a line that ends with a backslash goes on."""
    command, output = "", ""
    is_open = False
    for line in block.text.splitlines(keepends=True):
        if is_open:
            command += line
        elif line.startswith(PROMPT):
            if command:
                yield Step(command=command.rstrip("\n"), output=output)
            command, output = line.removeprefix(PROMPT), ""
        else:
            output += line
            continue
        is_open = command.endswith("\\\n")
    if command:
        yield Step(command=command.rstrip("\n"), output=output)


def in_order(said: str, printed: str) -> bool:
    """Return whether `printed` has the parts of what a page says, which `...` stands between."""
    parts = [re.escape(part) for part in said.strip().split("...")]
    return re.search(".*".join(parts), printed, re.DOTALL) is not None


@dataclass
class Walk:
    """One walk in `directory`; `words` are the page's words and what they are here.

    `environ` is what the first command sees; what one exports, the next one sees.
    """

    directory: Path
    words: Mapping[str, str]
    environ: Mapping[str, str]
    known: dict[str, str] = field(default_factory=dict)
    transcript: str = ""

    def __post_init__(self) -> None:
        self._state = self.directory / "shell-state"
        self._state.write_text(f"cd {shlex.quote(str(self.directory))}\n")

    def here(self, text: str) -> str:
        """Return the page's `text` with the words that it has here, learned ones included."""
        for word, real in self.words.items():
            text = text.replace(word, real)
        return re.sub(
            r"\b[0-9a-f]{7,64}\b", lambda found: self._learned(found[0]) or found[0], text
        )

    def _learned(self, word: str) -> str | None:
        """Return what the page's `word` is here, or the beginning of a longer one that it is."""
        whole = next((known for known in self.known if known.startswith(word)), None)
        return None if whole is None else self.known[whole][: len(word)]

    def run(self, step: Step) -> str:
        """Run one command as the page says and return what it printed, both streams together."""
        state, command = shlex.quote(str(self._state)), self.here(step.command)
        script = (
            f"source {state}\n(exit ${{last:-0}})\n{command}\nlast=$?\n"
            "{ export -p; declare -f; declare -p last; umask -p; printf 'cd %q\\n' \"$PWD\"; }"
            f" >{state}"
        )
        if QUESTION in step.output:
            printed = self._answer(script)
        else:
            done = subprocess.run(
                ["bash", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(self.environ),
                timeout=60,
                check=False,
            )
            printed = done.stdout.decode()
        self.transcript += f"$ {self.here(step.command)}\n{printed}"
        return printed

    def _answer(self, script: str) -> str:
        with Terminal(
            ["-c", script], program=["bash"], environ=self.environ, columns=200
        ) as person:
            person.read_until(QUESTION)
            person.type("yes\n")
            person.end()
            return _STYLE.sub("", person.text)

    def check(self, expected: str, printed: str) -> None:
        """Compare, and learn the words that the page has for the ones here.

        Raises:
            AssertionError: `printed` is not what the page says.
        """
        learned: dict[str, str] = {}
        found = re.fullmatch(self._form(expected, learned), _even(printed))
        if found is None:
            message = f"the page says:\n{_even(self.here(expected))}\nbut it is:\n{_even(printed)}"
            raise AssertionError(message)
        self.known |= {word: found[name] for word, name in learned.items()}

    def _form(self, expected: str, learned: dict[str, str]) -> str:
        """Return the expression that the page's output stands for."""
        text = expected
        for word, real in self.words.items():
            text = text.replace(word, real)
        lines = []
        for line in _even(text).splitlines(keepends=True):
            lines.append(r"(?:.*\n)*" if line == "...\n" else self._line_form(line, learned))
        return "".join(lines)

    def _line_form(self, line: str, learned: dict[str, str]) -> str:
        form, at = "", 0
        for found in _TOKEN.finditer(line):
            form += re.escape(line[at : found.start()])
            kind = str(found.lastgroup)
            form += self._word_form(found[0], learned) if kind == "word" else _FORMS[kind]
            at = found.end()
        return form + re.escape(line[at:])

    def _word_form(self, word: str, learned: dict[str, str]) -> str:
        if (real := self._learned(word)) is not None:
            return real
        if word in learned:
            return f"(?P={learned[word]})"
        learned[word] = f"w{len(self.known) + len(learned)}"
        return f"(?P<{learned[word]}>[0-9a-f]{{{len(word) - 2},{len(word)}}})"


def _even(text: str) -> str:
    """Return `text` without what depends on widths: runs of blanks, blanks at the ends of lines."""
    return "".join(
        re.sub(r" {2,}", "  ", line.rstrip()) + "\n"
        for line in text.replace("\r\n", "\n").replace("\r", "").splitlines()
    )


class Server:
    """A command that serves: started, waited for, and interrupted as Ctrl-C does."""

    def __init__(self, command: str, *, directory: Path, environ: Mapping[str, str]) -> None:
        self._log = directory / "server.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=directory,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def text(self) -> str:
        return self._log.read_text()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while words not in self.text:
            if self._process.poll() is not None or time.monotonic() > deadline:
                message = f"the server did not say {words!r}: {self.text!r}"
                raise AssertionError(message)
            time.sleep(0.05)

    def interrupt(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(timeout=PATIENCE)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a person who has just logged in, with this `host-agent` first."""
    return {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "LANG": "C.UTF-8",
        "TERM": "xterm",
        "NO_COLOR": "1",
    }
