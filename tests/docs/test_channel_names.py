"""Channels are told by their capabilities: only a channel's own modules say its name."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import host_agent
from host_agent.config import Approver
from host_agent.config.channels.registry import CHANNELS, RELAYED, Channels

PACKAGE = Path(host_agent.__file__).parent
REPOSITORY = PACKAGE.parent
OWN = ("notify/", "config/channels/")
"""The rooms that may name a channel."""
CONTRACT = {
    # The older way in for what arrives over Signal has the channel in its path, and so its body.
    *(
        "BridgedSignalBody",
        "SignalAnswer",
        "relay_signal",
        "bridged_signal",
        "/webhook/signal",
    ),
    "A message that arrived over Signal, as signal-cli-rest-api posts it.",
    # A bridge's way in, and the headers of Standard Webhooks.
    *("/webhook/decision", "webhook_decision", "webhook-id", "webhook-timestamp"),
    "webhook-signature",
}
"""Words of the contract that have a channel's name in them, and ask for none."""


def said(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield what a module says outside its docstrings: names that it makes or asks for, strings."""
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, f"{node.module}"


def words_of(text: str) -> set[str]:
    """Return the words of a text or a name, in lower case: `BridgedSignal` has two."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return {word.lower() for word in re.findall(r"[A-Za-z]+", apart)}


def named_in(source: str) -> list[str]:
    """Return where a module asks for a channel by its name."""
    tree = ast.parse(source)
    known = set(CHANNELS)
    if any(
        isinstance(node, ast.Import) and any(alias.name == "signal" for alias in node.names)
        for node in ast.walk(tree)
    ):
        known.discard("signal")  # the standard library's, which is another thing
    return [
        f"{line}: {text}"
        for line, text in said(tree)
        if text not in CONTRACT and known & words_of(text)
    ]


def test_nobody_but_a_channels_own_modules_names_a_channel() -> None:
    found = [
        f"{name}:{where}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not (name := path.relative_to(PACKAGE).as_posix()).startswith(OWN)
        for where in named_in(path.read_text())
    ]
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        'if channel == "signal": pass',
        "section = config.channels.ntfy",
        "from host_agent.notify.apprise import AppriseChannel",
        "class NtfyTerms: pass",
        'message = "Send it over Signal."',
    ],
)
def test_a_name_would_be_found(source: str) -> None:
    assert named_in(source)


@pytest.mark.parametrize("source", ["import signal\nsignal.signal(signal.SIGTERM, handler)"])
def test_a_signal_of_unix_is_none(source: str) -> None:
    assert not named_in(source)


def test_every_channel_has_a_section_a_module_and_a_way_to_answer() -> None:
    for name, declared in CHANNELS.items():
        assert name in Channels.model_fields
        assert importlib.util.find_spec(f"host_agent.notify.{name}") is not None
        address = declared.address
        assert address is None or address.key in Approver.model_fields
        assert not declared.needs_enrolment or (declared.proves_sender and address is not None)
        assert not (declared.carries_codes and declared.has_buttons)
        if declared.remedy.startswith("docs/"):
            assert (REPOSITORY / declared.remedy).exists()
    assert [name for name, declared in CHANNELS.items() if declared.is_relayed] == [RELAYED]


def test_declarations_bring_no_library_that_sends() -> None:
    program = (
        "import sys, host_agent.config, host_agent.metrics;"
        "print(sorted({'httpcore', 'httpx', 'websockets', 'apprise'} & set(sys.modules)),"
        " [name for name in sys.modules if name.startswith('host_agent.notify')])"
    )
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (asked.returncode, asked.stdout.strip()) == (0, "[] []")
