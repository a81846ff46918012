"""The grammars that sections of the configuration are made of, and what every section is.

Each refuses with one sentence that says what the value must be. Whole strings only, ASCII only.
Names of things on the host are matched by regular expressions: policy does it with `re.fullmatch`,
root's wrappers do it with POSIX extended ones.
"""

import re
import warnings
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from host_agent.operations.patterns import to_extended
from host_agent.text import DIGEST

MAX_PATTERN_LENGTH = 256
"""Characters of a regular expression. Python's engine can take time exponential in the resource's
length for nested repeats such as `(a+)+`; the length, and the short grammars of resources, bound
what an administrator can do to himself by mistake."""

_PORTABLE = re.compile(
    r"(?:[A-Za-z0-9_:/@,()|.*+?-]|\\[.+*?()|\[\]]|\[[A-Za-z0-9_.:-]+\])+", re.ASCII
)


class Section(BaseModel):
    """A table of the configuration that an adapter declares: frozen, strict, nothing unknown.

    Its docstring and the descriptions of its keys are the reference page. An empty allow-list
    means nothing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


def grammar(pattern: str, sentence: str) -> AfterValidator:
    """Return a check that a whole string matches `pattern`, refused with `sentence`."""
    compiled = re.compile(pattern, re.ASCII)

    def check(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(sentence)
        return text

    return AfterValidator(check)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return `pattern` compiled for a whole-string match over ASCII.

    Raises:
        ValueError: it does not compile, is ambiguous to Python's parser, or is not ASCII.
    """
    if not pattern.isascii():
        message = "holds a character that is not ASCII, which no resource can match"
        raise ValueError(message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return re.compile(pattern, re.ASCII)
        except (re.error, OverflowError, RecursionError, Warning) as error:
            message = f"is not a regular expression: {error}"
            raise ValueError(message) from None


def _check_pattern(pattern: str) -> str:
    compile_pattern(pattern)
    return pattern


def _check_listed(pattern: str) -> str:
    to_extended(pattern)
    return pattern


def _check_portable(pattern: str) -> str:
    is_portable = _PORTABLE.fullmatch(pattern) is not None and "(?" not in pattern
    if is_portable and re.search(r"[*+?][*+?]", re.sub(r"\\.", "", pattern)) is None:
        return pattern
    message = (
        "must be a pattern that the root wrappers read alike: letters, digits, _ : / @ , - . with"
        " * + ? ( ) | and [...], a backslash only before . + * ? ( ) | [ ]"
    )
    raise ValueError(message)


Pattern = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_PATTERN_LENGTH),
    AfterValidator(_check_pattern),
]
ListedPattern = Annotated[Pattern, AfterValidator(_check_listed)]
"""A pattern that root's own list has too, as the wrappers read it."""
PortablePattern = Annotated[
    Pattern, StringConstraints(max_length=MAX_PATTERN_LENGTH), AfterValidator(_check_portable)
]
"""A pattern that root's list of what is protected has as it stands."""
Fingerprint = Annotated[
    str,
    grammar(
        DIGEST,
        "must be 'sha256:' and 64 hex digits in lower case",
    ),
]
