"""What is wrong, or merely unwise, about a loaded configuration on this host, before it serves.

Faults stop the start and keep the old configuration at a reload. Warnings never do: they are for
`config check` and the log. Nothing here opens a socket or a process.
"""

import re
import stat
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from host_agent.config import (
    Config,
    IdentityEntry,
    Rule,
    RunnerKind,
    VerdictKind,
    check_permissions,
    compile_pattern,
)
from host_agent.host.install.root_list import RENDER, root_list_state
from host_agent.identity.files import read_linked
from host_agent.identity.registry import Autonomy, Registry, Role
from host_agent.identity.revocation import Revocation
from host_agent.notify.addresses import target_of
from host_agent.notify.peers import owner_fault
from host_agent.notify.signing import read_secret
from host_agent.operations import CATALOGUE
from host_agent.operations.git.section import GitSection
from host_agent.pki.door import load_certificates
from host_agent.pki.verification import (
    check_authorities,
    check_server_pair,
    reason_of_clients,
)
from host_agent.policy import approvers
from host_agent.policy.rules import terms_of

SOON = timedelta(days=14)
"""How long before its end a certificate or a revocation list is warned of."""

_NESTED_REPEAT = re.compile(r"[+*}]\)(?:[+*]|\{[0-9]*,\})")
"""A repeat of a group that ends in a repeat, as in `(a+)+`: what takes exponential time."""


def faults(config: Config, *, uid: int, now: datetime) -> list[str]:
    """Return every reason why the agent, running as `uid`, must not serve `config` at `now`."""
    return [
        *check_permissions(config, uid=uid),
        *check_files(config, now),
        *check_secrets(config),
        *_check_targets(config),
    ]


def _check_targets(config: Config) -> Iterator[str]:
    """Find URLs that the agent would not send to, whatever is there."""
    for name in config.channels.names:
        url = getattr(getattr(config.channels, name), "url", None)
        if url is not None:
            try:
                target_of(url)
            except ValueError as error:
                yield f"channels.{name}.url: {error}"


def check_secrets(config: Config) -> list[str]:
    """Return what is wrong with the secrets that webhooks and bridges sign with, by dotted key.

    Each is for one side only: who holds the one could else speak as the other.
    """
    found: list[str] = []
    seen: dict[bytes, str] = {}
    for key, file in config.secret_files:
        if not key.endswith("secret_file"):
            continue
        try:
            secret = read_secret(read_linked(file))
        except ValueError as error:
            found.append(f"{key}: {file}: {error}")
            continue
        if secret in seen:
            found.append(f"{key}: {file} holds the secret of {seen[secret]}; each needs its own")
        seen[secret] = key
    return found


def check_files(config: Config, now: datetime) -> list[str]:
    """Return what is wrong with the content of the TLS files: one line each, by dotted key."""
    found: list[str] = []
    server = config.server
    try:
        certificate, key = read_linked(server.certificate), read_linked(server.private_key)
        # Servers may have a certificate of another authority than their clients: chain not asked.
        check_server_pair(certificate, key, now)
    except ValueError as error:
        found.append(f"server.certificate: {error}")
    try:
        check_authorities(read_linked(server.client_ca), now)
    except ValueError as error:
        found.append(f"server.client_ca: {error}")
        return found
    try:
        Revocation(server.crl, server.client_ca).load(now)
    except ValueError as error:
        found.append(f"server.crl: {error}")
    return found


def warnings(config: Config, *, uid: int, now: datetime) -> list[str]:
    """Return what an administrator should know about `config`, one sentence each."""
    return [
        *_runner_warnings(config, uid),
        *_root_warnings(config),
        *_authority_warnings(config, now),
        *_expiry_warnings(config, now),
        *_identity_warnings(config),
        *_channel_warnings(config, uid),
        *_rule_warnings(config),
        *_idle_warnings(config),
        *_repository_warnings(config),
    ]


def _runner_warnings(config: Config, uid: int) -> Iterator[str]:
    if config.execution.runner is not RunnerKind.DIRECT:
        return
    if uid == 0:
        yield (
            "execution.runner: direct AS ROOT: every operation runs as root, with nothing between"
            " a mistake and this host; for development only"
        )
    else:
        yield (
            "execution.runner: direct: every operation runs as the agent's own user, without a"
            " privilege boundary; for development only"
        )


def _root_warnings(config: Config) -> Iterator[str]:
    found = root_list_state(config)
    if not found.is_good:
        yield f"execution.wrapper_dir: {found.sentence()}; as root: {RENDER}"


def _authority_warnings(config: Config, now: datetime) -> Iterator[str]:
    server = config.server
    try:
        findings = check_authorities(read_linked(server.client_ca), now)
    except ValueError:
        findings = []  # a fault, said by check_files
    for finding in findings:
        yield f"server.client_ca: {finding}; none of its clients will get in"
    for key in sorted({server.client_ca.with_suffix(".key"), server.client_ca.parent / "ca.key"}):
        if key.exists():
            yield (
                f"server.client_ca: the authority's private key seems to lie on this host: {key};"
                " whoever takes it can be anybody, so keep it elsewhere"
            )
    if server.crl is None:
        yield "server.crl: none is set, so a lost key is good until its certificate ends"
    yield from _list_warnings(config, now)


def _list_warnings(config: Config, now: datetime) -> Iterator[str]:
    """Find whom the revocation lists leave out."""
    revocation = Revocation(config.server.crl, config.server.client_ca)
    try:
        revocation.load(now)
    except ValueError:
        return  # a fault, said by check_files
    for authority in revocation.uncovered():
        yield (
            f"server.crl: it holds no list of the CA {authority.name!a}; none of its clients will"
            " get in"
        )
    for one in revocation.current:
        if one.points:
            names = ", ".join(sorted(name.partition(":")[2] for name in one.points))
            yield (
                "server.crl: it covers only certificates that name its distribution point"
                f" ({names}); others will not get in"
            )


def _expiry_warnings(config: Config, now: datetime) -> Iterator[str]:
    server = config.server
    try:
        certificate = read_linked(server.certificate)
        refused = reason_of_clients(certificate, read_linked(server.client_ca), now)
        if refused is not None:
            yield f"server.certificate: clients of the same authority refuse it: {refused}"
        end = load_certificates(certificate)[0].not_valid_after_utc
        if now < end <= now + SOON:
            yield f"server.certificate: it ends at {end:%Y-%m-%d %H:%M} UTC"
        revocation = Revocation(server.crl, server.client_ca)
        revocation.load(now)
        update = revocation.next_update
        if update is not None and update <= now + SOON:
            yield f"server.crl: it ends at {update:%Y-%m-%d %H:%M} UTC; then nobody gets in"
    except (OSError, ValueError):
        return  # a fault, said by check_files


def _identity_warnings(config: Config) -> Iterator[str]:
    if not config.identities:
        yield "identities: there are none, so nobody gets in"
    for index, identity in enumerate(config.identities):
        key = f"identities[{index}]"
        if identity.owner is None:
            yield (
                f"{key}.owner: {identity.cn} has no owner named and acts for itself; a person with"
                " two such identities could approve for themselves"
            )
        if identity.skip_ask and identity.autonomy is not Autonomy.FULL:
            yield f"{key}.skip_ask: has no effect with autonomy {identity.autonomy.value}"
        if Role.CALLER in identity.roles and not _rules_for(config, identity):
            yield f"{key}: no rule concerns {identity.cn}, so every ask of it is denied"


def _channel_warnings(config: Config, uid: int) -> Iterator[str]:
    for section in config.channels.sections:
        key = f"channels.{section.name}"
        for socket in section.sockets:
            fault = owner_fault(socket.path, socket.user, own_uid=uid)
            if fault is not None:
                yield (
                    f"{key}.{socket.key}: {fault}; nothing is told or believed there (see"
                    f" {key}.user)"
                )
        for name, sentence in section.warnings():
            yield f"{key}.{name}: {sentence}"
    relayed = {bridge.cn for bridge in config.bridges}
    for index, identity in enumerate(config.identities):
        if Role.BRIDGE in identity.roles and identity.cn not in relayed:
            yield f"identities[{index}]: {identity.cn} has no [[bridges]] entry and can do nothing"
    for index, approver in enumerate(config.approvers):
        for section in config.channels.sections:
            address = approver.address(section.name)
            if section.address is not None and address is not None:
                for sentence in section.address_warnings(address):
                    yield f"approvers[{index}].{section.address.key}: {sentence}"


def _rules_for(config: Config, identity: IdentityEntry) -> list[tuple[int, Rule]]:
    return [
        (index, rule)
        for index, rule in enumerate(config.rules)
        if rule.identities is None or identity.cn in rule.identities
    ]


def _rule_warnings(config: Config) -> Iterator[str]:
    for index, rule in enumerate(config.rules):
        key = f"rules[{index}]"
        for position, pattern in enumerate(rule.resources or ()):
            if _NESTED_REPEAT.search(pattern):
                yield (
                    f"{key}.resources[{position}]: repeats a repeat; a hostile resource may keep it"
                    " busy for very long"
                )
        earlier = next((i for i, e in enumerate(config.rules[:index]) if _hides(e, rule)), None)
        if earlier is not None:
            yield f"{key}: never decides, because rules[{earlier}] matches all that it matches"
        elif rule.verdict is VerdictKind.ASK:
            yield from _approver_warnings(config, key, rule)


def _hides(earlier: Rule, rule: Rule) -> bool:
    """Return whether `earlier` surely matches whatever `rule` does."""
    wide = set(earlier.operations)
    return (
        earlier.resources is None
        and (
            earlier.identities is None
            or (rule.identities is not None and set(rule.identities) <= set(earlier.identities))
        )
        and all(name in wide or f"{name.partition('.')[0]}.*" in wide for name in rule.operations)
    )


def _approver_warnings(config: Config, key: str, rule: Rule) -> Iterator[str]:
    """Find who is missing for `rule`: asked as an ask of it is asked."""
    registry = Registry(config.identities)
    terms = terms_of(rule)

    def able(caller_owner: str | None) -> approvers.Ways:
        return approvers.eligible(
            config,
            registry,
            terms,
            caller_owner,
            channels_of=lambda owner: approvers.channels_written(config, owner),
            voucher=lambda _owner, _channel: None,
        )

    owners = able(None)
    reached = {entry.acts_for for entry in config.approvers}
    certified = approvers.certified(registry, terms)
    for owner in rule.approvers or ():
        folded = owner.casefold()
        if folded in owners:
            continue
        if folded in reached:
            yield f"{key}.approvers: {owner} could not say yes over any channel of theirs"
        elif folded not in certified:
            yield (
                f"{key}.approvers: no identity of {owner} has the role {rule.approver_role},"
                " nor has an [[approvers]] entry"
            )
    off = "" if config.approvals.command_line or certified <= owners.keys() else _OFF
    count = approvers.agreeing_of(owners, rule.approvals)
    if count < rule.approvals:
        yield _unreachable(key, rule, count, "", off)
        return
    for identity in config.identities:
        concerned = rule.identities is None or identity.cn in rule.identities
        if concerned and Role.CALLER in identity.roles:
            count = approvers.agreeing_of(able(identity.acts_for), rule.approvals)
            if count < rule.approvals:
                yield _unreachable(key, rule, count, f" to {identity.cn}", off)


_OFF = " (certificates do not count: approvals.command_line is false)"


def _unreachable(key: str, rule: Rule, owners: int, whom: str, off: str) -> str:
    return (
        f"{key}.approvals: {rule.approvals} must say yes{whom} and {owners} could{off},"
        " so such requests are refused as unreachable"
    )


def _idle_warnings(config: Config) -> Iterator[str]:
    """Find rules and sections that nobody can ever use."""
    callers = {one.cn for one in config.identities if Role.CALLER in one.roles}
    sections = {
        name.partition(".")[0]
        for name in (spec.name for spec in CATALOGUE)
        if getattr(config, name.partition(".")[0], None) is not None
    }
    used: set[str] = set()
    for index, rule in enumerate(config.rules):
        key = f"rules[{index}]"
        adapters = {name.partition(".")[0] for name in rule.operations}
        who = callers if rule.identities is None else callers & set(rule.identities)
        if rule.identities is not None and not who:
            yield f"{key}.identities: none of them has the role caller: nothing ever comes to it"
        if not adapters & sections:
            missing = ", ".join(f"[{adapter}]" for adapter in sorted(adapters))
            yield f"{key}.operations: there is no {missing}, so nothing ever comes to it"
        elif not _may_match(config, rule, adapters):
            yield f"{key}.resources: match nothing that the configuration lists"
        elif who and rule.verdict is not VerdictKind.DENY:
            used |= adapters
    for adapter in sorted(sections - used):
        if config.rules:
            yield f"{adapter}: no rule lets anybody do any of its operations"


def _may_match(config: Config, rule: Rule, adapters: set[str]) -> bool:
    """Return whether the resources of `rule` may match; asked where all of them are listed."""
    asked = [adapter for adapter in CATALOGUE.adapters if adapter.name in adapters]
    if rule.resources is None or not all(adapter.has_fixed_names for adapter in asked):
        return True
    sections = [(adapter, config.section(adapter.section)) for adapter in asked]
    listed = [
        name
        for adapter, section in sections
        if section is not None
        for name in adapter.names(section)
    ]
    patterns = [compile_pattern(text) for text in rule.resources]
    return any(pattern.fullmatch(one) for pattern in patterns for one in listed)


def _repository_warnings(config: Config) -> Iterator[str]:
    section = config.section(GitSection)
    for index, repository in enumerate(section.repositories if section else ()):
        if _is_missing(Path(repository.path)):
            yield f"git.repositories[{index}].path: there is no directory {repository.path} yet"


def _is_missing(directory: Path) -> bool:
    """Return whether there is no such directory, as far as this user may look.

    A repository in somebody's closed home is for that user's wrapper to find, not for the agent.
    """
    try:
        return not stat.S_ISDIR(directory.stat().st_mode)
    except PermissionError:
        return False
    except OSError:
        return True
