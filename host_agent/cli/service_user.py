"""The user that the agent runs as, for commands that look at a configuration in its place."""

import os
import pwd
from pathlib import Path

from host_agent.errors import UsageError
from host_agent.host.install import layout

OPTION_HELP = (
    f"the user that the agent runs as; default: {layout.USER} for a configuration below"
    f" {layout.CONFIGURATION_DIR} where there is that user, else yourself"
)


def service_user(name: str | None, config: Path) -> tuple[str, int]:
    """Return name and uid of the user that the agent with this `config` runs as.

    `name` is the one that was given, if any. Without one, the configuration of an installation is
    that of the user that `install` made, and any other is your own.

    Raises:
        UsageError: there is no user called `name`.
    """
    if name is not None:
        try:
            return name, pwd.getpwnam(name).pw_uid
        except (KeyError, ValueError):
            message = "There is no user of that name on this host; --user takes the agent's user."
            raise UsageError(message) from None
    if Path(os.path.realpath(config)).is_relative_to(layout.CONFIGURATION_DIR):
        try:
            return layout.USER, pwd.getpwnam(layout.USER).pw_uid
        except KeyError:
            pass
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name, uid
    except KeyError:
        return str(uid), uid
