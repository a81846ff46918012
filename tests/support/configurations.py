"""Small configurations on disk, for tests that load them."""

from pathlib import Path

MINIMAL = """
[server]
certificate = "pki/server.crt"
private_key = "pki/server.key"
client_ca = "pki/ca.crt"
[execution]
runner = "direct"
wrapper_dir = "wrappers"
"""


def write(directory: Path, text: str = MINIMAL, *, name: str = "config.toml") -> Path:
    """Write `text` as the configuration of `directory`, and the files that `MINIMAL` names."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in ("pki", "wrappers", "state"):
        (directory / folder).mkdir(mode=0o700, exist_ok=True)
    for file in ("server.crt", "server.key", "ca.crt"):
        path = directory / "pki" / file
        if not path.exists():
            path.touch(mode=0o600)
    path = directory / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path
