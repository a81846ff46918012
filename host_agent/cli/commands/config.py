"""`host-agent config check`: every fault by its dotted key, or the policy as it takes effect."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from host_agent.cli import service_user
from host_agent.cli.terminal import render
from host_agent.config import Config, IdentityEntry, Rule, load
from host_agent.errors import EX_CONFIG, EX_OK, ConfigurationError
from host_agent.host import preflight
from host_agent.host.install import layout
from host_agent.identity.credential import Credential
from host_agent.identity.registry import Principal, Role, owner_of
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import OperationSpec
from host_agent.policy.rules import Rules, Summary

DEFAULT_CONFIG = Path(layout.CONFIGURATION)
VERDICTS: tuple[Summary, ...] = ("allow", "ask", "depends", "deny")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `config check` to the command line."""
    parser = subparsers.add_parser("config", help="check the configuration")
    commands = parser.add_subparsers(
        title="commands", dest="verb", metavar="COMMAND", required=True
    )
    check = commands.add_parser(
        "check",
        help="name every fault, or show what each identity may do",
        description="Names every fault by its dotted key and ends with 78, or shows the policy of"
        " each identity as it takes effect, and what is unwise.",
    )
    check.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, help=f"default: {DEFAULT_CONFIG}"
    )
    check.add_argument("--user", help=service_user.OPTION_HELP)
    check.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    check.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the configuration and return a sysexits status.

    Raises:
        ConfigurationError: it has faults, and a person is to be told.
        UsageError: `--user` is no user of this host.
    """
    now = datetime.now(UTC)
    _, uid = service_user.service_user(args.user, args.config)
    config, faults = _checked(args.config, uid, now)
    if config is None or faults:
        if not args.json:
            raise ConfigurationError(faults)
        sys.stdout.write(render.json_text({"ok": False, "faults": faults}) + "\n")
        return EX_CONFIG
    warnings = preflight.warnings(config, uid=uid, now=now)
    policies = [_policy(config, identity) for identity in config.identities]
    if args.json:
        _write_json(policies, warnings)
    else:
        _draw(policies, warnings)
    return EX_OK


def _checked(path: Path, uid: int, now: datetime) -> tuple[Config | None, list[str]]:
    try:
        config = load(path, uid=uid)
    except ConfigurationError as error:
        return None, error.faults
    return config, preflight.faults(config, uid=uid, now=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class _EffectivePolicy:
    """What one identity may do: per operation the verdict, and the rules that can decide."""

    identity: IdentityEntry
    verdicts: Mapping[str, Summary]
    rules: Mapping[str, tuple[Rule, ...]]


def _policy(config: Config, identity: IdentityEntry) -> _EffectivePolicy:
    rules = Rules(config.rules)
    principal = Principal(
        cn=identity.cn,
        unix_user=identity.unix_user,
        owner=owner_of(identity),
        roles=frozenset(identity.roles),
        autonomy=identity.autonomy,
        skip_ask=identity.skip_ask,
        credential=Credential(cn=identity.cn, fingerprint=identity.fingerprint or "", serial=0),
    )
    asked = tuple(_configured(config)) if Role.CALLER in identity.roles else ()
    return _EffectivePolicy(
        identity=identity,
        verdicts={spec.name: rules.summary(principal, spec) for spec in asked},
        rules={spec.name: rules.deciding(identity.cn, spec) for spec in asked},
    )


def _configured(config: Config) -> Iterator[OperationSpec]:
    for spec in CATALOGUE:
        if getattr(config, spec.adapter, None) is not None:
            yield spec


def _write_json(policies: Sequence[_EffectivePolicy], warnings: Sequence[str]) -> None:
    identities = [
        {
            "cn": policy.identity.cn,
            "owner": policy.identity.acts_for,
            "unix_user": policy.identity.unix_user,
            "roles": [role.value for role in policy.identity.roles],
            "autonomy": policy.identity.autonomy.value,
            "operations": [
                {
                    "name": name,
                    "verdict": verdict,
                    "rules": [rule.name for rule in policy.rules[name]],
                }
                for name, verdict in policy.verdicts.items()
            ],
        }
        for policy in policies
    ]
    answer = {"ok": True, "faults": [], "warnings": list(warnings), "identities": identities}
    sys.stdout.write(render.json_text(answer) + "\n")


def _draw(policies: Sequence[_EffectivePolicy], warnings: Sequence[str]) -> None:
    console = render.console()
    console.print(
        render.table(
            ("identity", "owner", "runs as", "roles", "autonomy"),
            (_facts(policy.identity) for policy in policies),
        )
    )
    console.print()
    rows = [row for policy in policies for row in _verdict_rows(policy)]
    console.print(render.table(("identity", "verdict", "operations", "rules"), rows))
    for warning in warnings:
        render.warn(f"warning: {render.visible(warning)}")
    console.print()
    console.print(f"The configuration is good; {render.counted(len(warnings), 'warning')}.")


def _facts(identity: IdentityEntry) -> tuple[str, ...]:
    autonomy = identity.autonomy.value + (", skips asking" if identity.skip_ask else "")
    roles = ", ".join(role.value for role in identity.roles)
    return (
        identity.cn,
        identity.acts_for,
        identity.unix_user or "the agent's user",
        roles,
        autonomy,
    )


def _verdict_rows(policy: _EffectivePolicy) -> Iterator[tuple[str, ...]]:
    for verdict in VERDICTS:
        names = [name for name, said in policy.verdicts.items() if said == verdict]
        if names:
            rules = dict.fromkeys(rule.name for name in names for rule in policy.rules[name])
            shown = "; ".join(render.visible(name) for name in rules)
            yield policy.identity.cn, verdict, ", ".join(names), shown or "no rule"
