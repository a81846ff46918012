"""Command lines of journalctl, where they are run as root."""

from collections.abc import Sequence

from host_agent.hooks.programs.systemctl import translate as translate_systemctl
from host_agent.hooks.translation import READ, UNKNOWN, Suggestion, Translation, Value, options
from host_agent.hooks.translation import parse as parse_words

_KNOWN = options(
    "--no-pager -q --quiet -e --pager-end -x --catalog -r --reverse", "-u --unit -n --lines"
)
_MOST_LINES = 10_000


def translate(words: Sequence[str]) -> Translation:
    """Return what the command line does."""
    parsed = parse_words(words, _KNOWN)
    if parsed is None or parsed.operands:
        return UNKNOWN
    unit = parsed.given.get("-u") or parsed.given.get("--unit")
    if unit is None:
        return READ
    found = translate_systemctl(["status", unit]).suggestions
    if not found:
        return UNKNOWN
    parameters: dict[str, Value] = dict(found[0].parameters)
    lines = parsed.given.get("-n") or parsed.given.get("--lines") or ""
    if lines.isascii() and lines.isdigit() and len(lines) < 6 and 1 <= int(lines) <= _MOST_LINES:
        parameters["lines"] = int(lines)
    return READ._replace(suggestions=(Suggestion("systemd.logs", parameters),))
