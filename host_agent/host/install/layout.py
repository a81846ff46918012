"""Where everything of an installed agent lies, by its path on the host."""

from typing import Final

USER: Final = "host-agent"
"""The agent's user and group."""

CONFIGURATION_DIR: Final = "/etc/host-agent"
CONFIGURATION: Final = f"{CONFIGURATION_DIR}/config.toml"
PKI_DIR: Final = f"{CONFIGURATION_DIR}/pki"
SECRETS_DIR: Final = f"{CONFIGURATION_DIR}/secrets"
"""Where the files with secrets of channels and bridges go: root's, readable by the agent."""

STATE_DIR: Final = "/var/lib/host-agent"
WRAPPER_DIR: Final = "/usr/local/lib/host-agent"
PROTECTED: Final = f"{WRAPPER_DIR}/protected"
"""Root's own list of what the wrappers never change."""

ALLOWED: Final = f"{WRAPPER_DIR}/allowed"
"""Root's own list of what the wrappers do at all."""

AUDIT: Final = f"{WRAPPER_DIR}/audit"
"""Root's own word on where an append-only audit log lies."""

LOG_DIR: Final = "/var/log/host-agent"
"""Where a bootstrap has the audit log: root's, and the agent's to append to."""

COMMANDS: Final = f"{WRAPPER_DIR}/commands"
"""Root's own list of the commands that the exec adapter may run."""

MANIFEST: Final = f"{WRAPPER_DIR}/manifest.json"
SUDOERS: Final = "/etc/sudoers.d/host-agent"
UNIT_NAME: Final = "host-agent.service"
UNIT: Final = f"/etc/systemd/system/{UNIT_NAME}"
TRIAL_NAME: Final = "try-host-agent.service"
"""A unit that does nothing, for a first approval. One called `host-agent...` is protected."""

TRIAL_PATTERN: Final = TRIAL_NAME.replace(".", r"\.")
"""As `[systemd] units` lists it; `install` puts the unit there while it is listed."""

TRIAL: Final = f"/etc/systemd/system/{TRIAL_NAME}"
RENEWING_NAMES: Final = (
    *("host-agent-crl.service", "host-agent-crl.timer"),
    *("host-agent-renewals.service", "host-agent-renewals.timer"),
    *("host-agent-renew@.service", "host-agent-renew@.timer"),
)
"""Units that keep certificates and the revocation list current. None is started by `install`."""

RENEWING: Final = {f"/etc/systemd/system/{name}": name for name in RENEWING_NAMES}
SYSUSERS_NAME: Final = "host-agent.conf"
SYSUSERS: Final = f"/etc/sysusers.d/{SYSUSERS_NAME}"
TMPFILES: Final = "/etc/tmpfiles.d/host-agent.conf"
LOGROTATE: Final = "/etc/logrotate.d/host-agent"
PACKAGED: Final = {
    UNIT: f"/usr/lib/systemd/system/{UNIT_NAME}",
    **{path: f"/usr/lib/systemd/system/{name}" for path, name in RENEWING.items()},
    SYSUSERS: f"/usr/lib/sysusers.d/{SYSUSERS_NAME}",
    TMPFILES: "/usr/lib/tmpfiles.d/host-agent.conf",
}
"""Where a Debian package has the same files. The place in /etc goes before it, where both are."""

AUTHORITY_DIR: Final = "/root/host-agent-ca"
"""Where `--bootstrap` makes the first authority: readable by root alone, and meant to move away."""

BUNDLE_DIR: Final = "/root/host-agent-bundles"
"""Where `--bootstrap` puts a bundle for each person: root's alone, and meant to be handed out."""


def beside(path: str) -> str:
    """Return where a new version goes when the file at `path` is an administrator's own.

    sudo, systemd, sysusers and tmpfiles pass over the name; logrotate only over what it knows.
    """
    return f"{path}.dpkg-new" if path == LOGROTATE else f"{path}.new"
