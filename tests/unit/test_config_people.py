"""Channels, approvers and bridges in the configuration: taken where they fit, refused by key."""

import os
from pathlib import Path

import pytest

from host_agent.config import Config, check_permissions, load
from host_agent.config.channels.signal import SignalSection
from host_agent.config.channels.webhook import WebhookSection
from host_agent.config.people import plugin_fault
from host_agent.errors import ConfigurationError
from tests.support.configurations import MINIMAL, write

ACI = "3f0a5b5e-0c7c-4f7c-9d5b-9d3f0a5b5e0c"
OTHER = "3f0a5b5e-0c7c-4f7c-9d5b-9d3f0a5b5e0d"
REST = """[channels.signal]
driver = "rest"
url = "http://127.0.0.1:8080"
account = "+431234567"
"""
TRUSTED = "trusts_local_users = true\n"
SHOWN = 'client_certificate = "pki/server.crt"\nclient_key_file = "secrets/old"\n'
SIGNAL = '[channels.signal]\nsocket = "/run/signal-cli/socket"\naccount = "+431234567"\n'
WEBHOOK = '[channels.webhook]\nurl = "https://chat.example/hook"\nsecret_file = "secrets/webhook"\n'
NTFY = '[channels.ntfy]\nurl = "https://ntfy.example"\ntoken_file = "secrets/ntfy"\n'
MATRIX = """[channels.matrix]
url = "https://matrix.example"
user = "@host-agent:home.example"
token_file = "secrets/matrix"
domains = ["home.example"]
"""
APPRISE = '[channels.apprise]\nurls_file = "secrets/apprise"\n'
CHANNELS = SIGNAL + WEBHOOK + NTFY + APPRISE + MATRIX
ALICE = f'[[approvers]]\nowner = "Alice"\nsignal = "{ACI}"\nchannels = ["signal", "webhook"]\n'
IDENTITIES = """
[[identities]]
cn = "chat-bridge"
owner = "relay"
roles = ["bridge"]
"""
BRIDGE = """
[[bridges]]
cn = "chat-bridge"
secret_file = "secrets/bridge"
approvers = {"U123" = "alice"}
"""


def place(directory: Path, text: str) -> Path:
    """Write a configuration with the secrets that it may name."""
    path = write(directory, MINIMAL + text)
    (directory / "secrets").mkdir(mode=0o700, exist_ok=True)
    for name in ("webhook", "ntfy", "apprise", "matrix", "bridge", "old"):
        secret = directory / "secrets" / name
        secret.write_text(f"{name}-" + "s" * 32)
        secret.chmod(0o600)
    return path


def taken(directory: Path, text: str) -> Config:
    return load(place(directory, text))


def faults(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        load(place(directory, text))
    return refused.value.faults


def test_everything_is_taken(tmp_path: Path) -> None:
    config = taken(tmp_path, CHANNELS + ALICE + IDENTITIES + BRIDGE)
    assert config.channels.names == ("signal", "webhook", "ntfy", "apprise", "matrix")
    assert config.approvers[0].acts_for == "alice"
    assert config.approvers[0].roles == ("approver",)
    assert config.bridges[0].approvers == {"U123": "alice"}
    assert config.bridge("chat-bridge") is config.bridges[0]
    assert config.approver("alice") is config.approvers[0]
    assert config.approver("bob") is None
    keys = [key for key, _ in config.secret_files]
    assert keys == [
        "channels.webhook.secret_file",
        "channels.ntfy.token_file",
        "channels.apprise.urls_file",
        "channels.matrix.token_file",
        "bridges[0].secret_file",
    ]


@pytest.mark.parametrize("text", [REST + TRUSTED, REST.replace("http:", "https:") + SHOWN])
def test_a_rest_service_that_is_proven_or_trusted_is_taken(tmp_path: Path, text: str) -> None:
    signal = taken(tmp_path, text).channels.section(SignalSection)
    assert signal is not None
    assert signal.url is not None


def test_the_command_line_counts_until_it_is_switched_off(tmp_path: Path) -> None:
    assert taken(tmp_path, "").approvals.command_line
    assert taken(tmp_path, SIGNAL).approvals.command_line
    assert not taken(tmp_path, "[approvals]\ncommand_line = false\n").approvals.command_line


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (SIGNAL.replace('socket = "/run/signal-cli/socket"\n', ""), "channels.signal:"),
        (SIGNAL + 'url = "http://127.0.0.1:8080"\n', "channels.signal:"),
        (SIGNAL + 'driver = "rest"\n', "channels.signal:"),
        (REST, "channels.signal: any local user could answer"),
        (REST.replace("http:", "https:"), "channels.signal: a url of https needs client_cert"),
        (REST + TRUSTED + 'ca_file = "pki/ca.crt"\n', "channels.signal: ca_file, client_cert"),
        (SIGNAL + 'client_key_file = "secrets/old"\n', "channels.signal: ca_file, client_cert"),
        (SIGNAL + 'user = "#0"\n', "channels.signal.user: must be the name of a unix user"),
        (
            REST.replace("http:", "https:") + SHOWN.replace("secrets/old", "secrets/none"),
            "channels.signal.client_key_file:",
        ),
        (SIGNAL.replace("+431234567", "0431234567"), "channels.signal.account:"),
        (WEBHOOK.replace("https:", "http:"), "channels.webhook.url: must be https"),
        (WEBHOOK.replace("chat.", "me:pw@chat."), "channels.webhook.url: must hold no credentials"),
        (WEBHOOK.replace("/hook", "/hook#a"), "channels.webhook.url: must hold no credentials"),
        (WEBHOOK.replace("https:", "ftp:"), "channels.webhook.url: must be an https URL"),
        (WEBHOOK.replace("/webhook", "/nothing"), "channels.webhook.secret_file:"),
        (NTFY + 'reply_token_file = "secrets/old"\n', "channels.ntfy:"),
        (NTFY + 'reply_topic = "a/b"\n', "channels.ntfy.reply_topic:"),
        (MATRIX.replace("https:", "http:"), "channels.matrix.url: must be https"),
        (
            MATRIX.replace("https://matrix.example", "http://127.0.0.1:8008"),
            "channels.matrix: any local user could answer",
        ),
        (MATRIX.replace("@host", "host"), "channels.matrix.user: must be a user id"),
        (MATRIX.replace('"home.example"]', "]"), "channels.matrix.domains: must not be empty"),
        (MATRIX.replace('["home.', '["@home.'), "channels.matrix.domains[0]: must be the name"),
        (MATRIX.replace('/matrix"', '/none"'), "channels.matrix.token_file:"),
        (
            CHANNELS + ALICE.replace("signal =", 'matrix = "@Alice:home.example"\nsignal ='),
            "approvers[0].matrix: must be a user id",
        ),
        (APPRISE + "surprise = 1\n", "channels.apprise.surprise: is not a known key"),
        ("[channels.pigeon]\n", "channels.pigeon: is not a known key"),
        (ALICE, "approvers[0].channels[0]: there is no [channels.signal]"),
        (CHANNELS + ALICE.replace(ACI, ACI.upper()), "approvers[0].signal: must be an ACI"),
        (CHANNELS + ALICE.replace('"webhook"', '"signal"'), "approvers[0].channels[1]: is listed"),
        (CHANNELS + ALICE.replace('"webhook"', '"ntfy"'), "approvers[0].channels[1]: needs ntfy"),
        (CHANNELS + ALICE.replace('"signal", "webhook"', ""), "approvers[0].channels: must not be"),
        (CHANNELS + ALICE + ALICE.replace(ACI, OTHER), "approvers[1].owner: is the same"),
        (CHANNELS + ALICE + ALICE.replace("Alice", "bob"), "approvers[1].signal: is another"),
        (CHANNELS + ALICE + BRIDGE, "bridges[0].cn: names no identity with the role bridge"),
        (
            CHANNELS + ALICE + IDENTITIES.replace('"bridge"', '"caller"') + BRIDGE,
            "bridges[0].cn: names no identity with the role bridge",
        ),
        (CHANNELS + ALICE + IDENTITIES + BRIDGE + BRIDGE, "bridges[1].cn: is the same"),
        (
            CHANNELS + ALICE + IDENTITIES + BRIDGE.replace('"alice"', '"mallory"'),
            "bridges[0].approvers.U123: names no owner of [[approvers]]",
        ),
        (
            CHANNELS + ALICE.replace('"signal", "webhook"', '"signal"') + IDENTITIES + BRIDGE,
            "bridges[0].approvers.U123: names an owner whose channels do not have webhook",
        ),
        (
            CHANNELS + ALICE + IDENTITIES.replace("relay", "ALICE") + BRIDGE,
            "bridges[0].approvers.U123: names the bridge's own owner",
        ),
        (CHANNELS + ALICE + IDENTITIES + BRIDGE.replace("/bridge", "/none"), "bridges[0].secret_f"),
        ('[approvals]\nplugin = "command:check"\n', "approvals.plugin: must be command: and an"),
        ('[approvals]\nplugin = "http://127.0.0.1/x"\n', "approvals.plugin: must be command: and"),
        ('[approvals]\nplugin = "command:/etc/nothing-there"\n', "approvals.plugin: /etc/nothing"),
        ('[approvals]\nplugin = "command:/etc/../bin/true"\n', "approvals.plugin: must be a path"),
        ('[approvals]\nplugin = "command:/etc/passwd"\n', "approvals.plugin: /etc/passwd is no pr"),
        ("[approvals]\nescalate_seconds = 1\n", "approvals.escalate_seconds: must be at least 5"),
        ("[approvals]\ncooldown_seconds = -1\n", "approvals.cooldown_seconds: must be at least 0"),
    ],
)
def test_a_contradiction_is_named_by_its_key(tmp_path: Path, text: str, fault: str) -> None:
    assert any(line.startswith(fault) for line in faults(tmp_path, text))


def test_plain_http_is_taken_to_loopback_only(tmp_path: Path) -> None:
    config = taken(tmp_path, WEBHOOK.replace("https://chat.example", "http://127.0.0.1:9"))
    section = config.channels.section(WebhookSection)
    assert section is not None
    assert section.url.startswith("http://127.0.0.1:9/")


def test_a_program_of_root_is_taken_as_plugin(tmp_path: Path) -> None:
    program = "/usr/bin/env"
    assert plugin_fault(f"command:{program}") is None
    assert plugin_fault("https://check.example/") is None
    config = taken(tmp_path, f'[approvals]\nplugin = "command:{program}"\n')
    assert config.approvals.plugin == f"command:{program}"


def test_a_plugin_that_others_may_write_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "check"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o775)
    fault = plugin_fault(f"command:{program}")
    assert fault is not None
    assert "root" in fault


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of root")
def test_a_plugin_that_others_may_replace_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o755)
    program = folder / "check"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert plugin_fault(f"command:{program}") is None
    folder.chmod(0o775)
    fault = f"{program} may be replaced by others than root, who may write {folder}"
    assert plugin_fault(f"command:{program}") == fault
    assert f"approvals.plugin: {fault}" in faults(
        tmp_path, f'[approvals]\nplugin = "command:{program}"\n'
    )


@pytest.mark.promise("c13")
@pytest.mark.parametrize("name", ["webhook", "ntfy", "apprise", "bridge"])
def test_a_secret_of_a_channel_gives_nothing_away(tmp_path: Path, name: str) -> None:
    path = place(tmp_path, CHANNELS + ALICE + IDENTITIES + BRIDGE)
    assert check_permissions(load(path), uid=os.geteuid()) == []
    (tmp_path / "secrets" / name).chmod(0o640)
    found = check_permissions(load(path), uid=os.geteuid())
    assert len(found) == 1
    assert "must give nothing to group or others" in found[0]
