"""Secrets in what a command printed, taken out before it is answered, recorded or logged.

One table of token formats, as their issuers document them; what follows a word such as
`password=`; private keys in PEM; credentials in URLs; and all of these inside base64. A test holds
the table to the detectors of the detect-secrets project. This is a net, not a proof: a secret of no
known form passes. Nothing here reads or keeps anything.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from host_agent.operations.catalogue import Output

MARK = "[redacted]"
LARGE_CHARACTERS = 65_536
"""Longer text is better searched outside the event loop: a megabyte takes some tenths of a
second."""
_PARTIAL_CHARACTERS = 4_096
_PIECE_CHARACTERS = 32_768
_LONGEST_KEY = 65_536

# What an expression can pass over before it fails has a bound: a match holds up the whole agent.
_FORMATS = (
    r"(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[0-9A-Z]{16}",  # AWS access key
    r"gh[pousr]_[A-Za-z0-9_]{36,255}|github_pat_[A-Za-z0-9_]{22,255}",
    r"gl(?:pat|dt|ft|soat|oas|rt|cbt|ptt|imt|agent)-[A-Za-z0-9_-]{20,255}|GR1348941[A-Za-z0-9_-]{20}",
    r"(?i:xox[abeoprs])(?:-[A-Za-z0-9]+){1,6}|xapp-[0-9]-[A-Za-z0-9-]{20,255}",  # Slack
    r"(?i:hooks\.slack\.com/services/T[a-z0-9_]+/B[a-z0-9_]+/[a-z0-9_]+)",
    r"(?i:(?<=/soap/v3/)[a-z0-9]{64}|(?<=/soap/v3.1/)[a-z0-9]{64})",  # SoftLayer
    r"[rs]k_(?:live|test)_[0-9A-Za-z]{24,255}",  # Stripe
    r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",  # SendGrid
    r"\b(?:AC[a-z0-9]{32}|SK[a-z0-9]{32})\b",  # Twilio
    r"npm_[A-Za-z0-9]{36}|(?<=_authToken=)[^\s\x00]{4,}",
    r"pypi-Ag[A-Za-z0-9_-]{70,500}",
    r"\bsk-(?=[A-Za-z0-9_-]{0,128}?[A-Za-z0-9]{20})[A-Za-z0-9_-]++",  # OpenAI and alike
    r"[0-9a-z]{32}-us[0-9]{1,2}",  # Mailchimp
    r"sq0(?:csp|atp|idp)-[0-9A-Za-z_\\-]{22,43}",  # Square
    r"\beyJ[A-Za-z0-9_=-]{1,4096}+\.[A-Za-z0-9_=-]+(?:\.[A-Za-z0-9_.+/=-]*)?",  # JWT
    r"\bAKC[a-zA-Z0-9]{10,}|\bAP[0-9A-F][a-zA-Z0-9]{8,}",  # Artifactory
    r"(?<=AccountKey=)[a-zA-Z0-9+/=]{40,}",  # Azure storage
    r"hvs\.[A-Za-z0-9_-]{24,}|hvb\.[A-Za-z0-9_-]{24,}",  # Vault
    r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
)
_PEM = (
    r"-----BEGIN (?:[A-Z0-9]{1,16} ){0,4}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]|-(?!----END)){0,65536}"
    r"(?:-----END (?:[A-Z0-9]{1,16} ){0,4}PRIVATE KEY(?: BLOCK)?-----)?"
    r"|BEGIN (?:[A-Z0-9]{1,16} ){0,4}PRIVATE KEY(?: BLOCK)?"
    r"|PuTTY-User-Key-File-[0-9][^\x00]{0,65536}"
)
_URL = r"(?<=://)[^\s/@:\x00]{0,255}:[^\s/@\x00]{1,255}(?=@)"
_WORD = (
    r"(?:api[_-]?key|access[_-]?key|account[_-]?key|auth[_-]?key|private[_-]?key|secret[_-]?key"
    r"|client[_-]?secret|passphrase|password|passwd|\bpwd\b|\bpw\b|\btoken|_token|secret"
    r"|db[_-]?pass|authorization)"
)
_ASSIGNED = (
    rf"(?i:(?P<name>{_WORD}[A-Za-z0-9_-]{{0,40}}[\"']?[^\S\n]{{0,3}}(?::=|=>|[:=])[^\S\n]{{0,3}}"
    r"(?:bearer |basic |token )?[\"']?)(?P<value>[^\s\"',;\x00-\x1f]{4,4096}))"
)
_LONG = (
    r"(?i:(?P<long_name>(?:(?:cloudant|clou|cl|softlayer|sl|(?:ibm[_-]?)?(?:cloud|iam|cos|hmac)?)"
    r"[_-]{0,2}(?:api)?[_-]{0,2}(?:key|pwd|pw|password|pass|token)[\"'\]]{0,3} +"
    r"|(?:key|pwd|pw|pass|password|token)[\"'\]]{0,3} {0,5}(?:::|:=|=>|[:=]) {0,5})"
    r"[\"']?)(?P<long>[A-Za-z0-9_-]{24,4096}))"
)
_BARE = (
    r"\b[0-9]{8,10}:[0-9A-Za-z_-]{35}\b",  # Telegram
    r"\b[MNO][A-Za-z0-9_-]{23,25}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38}",  # Discord
)


class _Group(NamedTuple):
    """Expressions, and what every text that one of them matches has in it.

    `hints` are there as they are, or else `folded`, in lower case.
    """

    forms: tuple[str, ...]
    hints: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()


# Most output has nothing of a secret in it, and to look for a word costs a hundredth of what the
# expressions cost.
_GROUPS = (
    _Group((_PEM, _URL), hints=("PRIVATE KEY", "PuTTY-User-Key-File-", "://")),
    _Group(
        _FORMATS,
        hints=(
            *("A3T", "AB", "AC", "AK", "AS", "AP", "SK", "SG.", "GR1348941", "AGE-SECRET-KEY-1"),
            *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "npm_", "pypi-Ag", "xapp-"),
            *("glpat-", "gldt-", "glft-", "glsoat-", "gloas-", "glrt-", "glcbt-", "glptt-"),
            *("glimt-", "glagent-", "k_live_", "k_test_", "sk-", "-us", "sq0", "eyJ"),
            *("_authToken=", "AccountKey=", "hvs.", "hvb."),
        ),
        folded=("xox", "hooks.slack.com", "/soap/v3"),
    ),
    _Group(_BARE, hints=(":", ".")),
    _Group(
        (_ASSIGNED, _LONG), folded=("key", "secret", "pass", "pwd", "pw", "token", "authorization")
    ),
)


@cache
def _expression(groups: tuple[_Group, ...]) -> re.Pattern[str]:
    return re.compile("|".join(form for group in groups for form in group.forms))


def _groups_in(text: str) -> tuple[_Group, ...]:
    """Return the groups that may match in `text`."""
    if not text.isascii():  # ignoring case, an expression takes other letters for those of ASCII
        return _GROUPS
    lower = text.lower()
    return tuple(
        group
        for group in _GROUPS
        if any(hint in text for hint in group.hints) or any(hint in lower for hint in group.folded)
    )


def _substitute(text: str) -> str:
    groups = _groups_in(text)
    return _expression(groups).sub(_replaced, text) if groups else text


_AWS_SECRET = re.compile(
    r"(?i:aws.{0,20}?(?:key|pwd|pw|password|pass|token).{0,20}?)[\"']([0-9a-zA-Z/+]{40})[\"']"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{24,65536}={0,2}")


def redact(text: str) -> str:
    """Return `text` with every secret that is recognised replaced by `[redacted]`.

    Long text is searched in pieces that end with a line, so that a thread that does it lets others
    run in between; a private key is never divided.
    """
    if not text:  # most errors
        return text
    if len(text) <= _PIECE_CHARACTERS:
        return _redact_piece(text)
    return "".join(_redact_piece(piece) for piece in _pieces(text))


def _pieces(text: str) -> Iterator[str]:
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin + _PIECE_CHARACTERS) + 1 or len(text)
        end = min(end, begin + 2 * _PIECE_CHARACTERS)
        opened = text.rfind("-----BEGIN ", begin, end)
        if opened >= 0 and text.find("-----END ", opened, end) < 0:
            closed = text.find("-----END ", end, end + _LONGEST_KEY)
            end = len(text) if closed < 0 else text.find("\n", closed) + 1 or len(text)
            end = min(end, begin + 2 * _PIECE_CHARACTERS + _LONGEST_KEY)
        yield text[begin:end]
        begin = end


def _redact_piece(text: str) -> str:
    text = _substitute(text)
    text = _AWS_SECRET.sub(lambda found: found[0].replace(found[1], MARK), text)
    return _BASE64.sub(_replaced_if_encoded, text)


def redact_output(output: Output) -> Output:
    """Return `output` without secrets; where it was cut, also without its last, partial word.

    The true sizes and the hash stay those of what the command printed.
    """
    stdout, stderr = output.stdout, output.stderr
    if output.truncated:
        stdout, stderr = _without_partial(stdout), _without_partial(stderr)
    clean_stdout, clean_stderr = redact(stdout), redact(stderr)
    if clean_stdout == output.stdout and clean_stderr == output.stderr:
        return output
    return replace(output, stdout=clean_stdout, stderr=clean_stderr)


def _replaced(found: "re.Match[str]") -> str:
    groups = found.groupdict()
    name = groups.get("name") or groups.get("long_name")
    return MARK if name is None else name + MARK


def _replaced_if_encoded(found: "re.Match[str]") -> str:
    try:
        standard = found[0].translate(_TO_STANDARD).rstrip("=")
        decoded = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        text = decoded.decode("ascii")
    except (binascii.Error, ValueError):
        return found[0]
    return MARK if _substitute(text) != text else found[0]


_TO_STANDARD = str.maketrans("-_", "+/")


def _without_partial(text: str) -> str:
    end = len(text)
    while end > 0 and len(text) - end < _PARTIAL_CHARACTERS and not text[end - 1].isspace():
        end -= 1
    return text[:end] if end > 0 and text[end - 1].isspace() else text
