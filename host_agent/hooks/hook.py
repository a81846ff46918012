"""`host-agent hook HOST`: one event is read from standard input and answered.

Whatever goes wrong here is a denial: the exit status is then 2, with a reason.
"""

import os
import sys
from types import FrameType

from host_agent.hooks.hosts import (
    BLOCK,
    NAMES,
    Answer,
    UnknownEventError,
    answer,
    read_event,
    refusal,
)
from host_agent.hooks.judgement import judge
from host_agent.hooks.settings import HookSettingsError, load_settings, settings_path

MAX_EVENT_BYTES = 8 * 1024 * 1024
DEADLINE_SECONDS = 4
"""After which a hook that has not answered denies. Hosts wait longer, as `integrate` sets them."""


class _TooLateError(Exception):
    pass


def main(host: str) -> int:
    """Answer the event of `host` and return the exit status; nothing is raised."""
    try:
        _set_deadline()
        given = _answered(host)
        sys.stdout.write(given.stdout)
        sys.stdout.flush()
        sys.stderr.write(given.stderr)
        sys.stderr.flush()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the command must not run
        return _failed(error)
    return given.status


def _answered(host: str) -> Answer:
    if host not in NAMES:
        return refusal(host, f"host-agent hook: {host!a} is none of {', '.join(NAMES)}.")
    content = sys.stdin.buffer.read(MAX_EVENT_BYTES + 1)
    if len(content) > MAX_EVENT_BYTES:
        return refusal(host, "host-agent hook: the command is too long to be judged.")
    try:
        call = read_event(host, content)
        _note_call(host)
        if call is None:
            return answer(host, None)
        settings = load_settings(settings_path(os.environ))
    except (UnknownEventError, HookSettingsError) as error:
        return refusal(host, f"host-agent hook: nothing was judged, so nothing may run: {error}")
    return answer(host, judge(call.command, call.directory, settings))


def mark_path(host: str) -> str:
    """Return the file whose time is that of the last event of `host`."""
    above = os.environ.get("XDG_STATE_HOME", "")
    if not above.startswith("/"):
        above = os.path.join(os.path.expanduser("~"), ".local", "state")  # noqa: PTH111, PTH118
    return os.path.join(above, "host-agent", "integrations", f"{host}.called")  # noqa: PTH118


def _note_call(host: str) -> None:
    """Set the time of the mark, where `integrate` has put one; it proves that the host calls."""
    try:
        os.utime(mark_path(host))
    except OSError:
        return


def _set_deadline() -> None:
    import signal

    def ended(_number: int, _frame: FrameType | None) -> None:
        message = "it took too long"
        raise _TooLateError(message)

    signal.signal(signal.SIGALRM, ended)
    signal.alarm(DEADLINE_SECONDS)


def _failed(error: BaseException) -> int:
    kind = type(error).__name__
    try:
        # What standard output could not take must not be tried again at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stderr.write(f"host-agent hook failed, so nothing may run ({kind}: {error}).\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
    return BLOCK
