"""apt on Debian 12 and 13: real wrappers, apt and dpkg, a small repository of the tests' own.

What an attack must not do is shown by what dpkg says of every package before and after it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from host_agent.canonical import JsonValue
from host_agent.errors import (
    HostAgentError,
    HostBusyError,
    HostFailedError,
    HostNotFoundError,
    ProtectedError,
    TargetChangedError,
)
from host_agent.operations.apt.adapter import ADAPTER
from host_agent.operations.apt.section import AptSection
from host_agent.operations.catalogue import Catalogue, Operation, Output
from tests.support.apt_repository import SOURCE, Package, PackageRepository
from tests.support.installed import WRAPPERS
from tests.support.machine import PACKAGED, Machine
from tests.support.packaged import ROOT
from tests.support.wrapper_host import WrapperHost

CATALOGUE = Catalogue((ADAPTER,))
SECTION = AptSection(packages=("web.*", r"g\+\+x\+", "trial.*", "vault", "libc6"))
PROTECTED = "vault"
_NUMBERS = count(1)


@dataclass
class AptHost(WrapperHost):
    """A booted Debian with the apt wrappers, which takes packages from a directory of its own."""

    machine: Machine
    repository: PackageRepository

    def prepare(self) -> None:
        """Put wrappers, root's lists and the source in place, and read the index once."""
        for file in (ROOT / "wrappers").iterdir():
            if file.name.startswith("apt-"):
                self.machine.write(f"{WRAPPERS}/{file.name}", file.read_bytes(), mode=0o755)
        names = "".join(f"names apt {name}\n" for name in ADAPTER.names(SECTION))
        self.machine.write(f"{WRAPPERS}/allowed", f"version 1\n{names}allowed apt.*\n")
        self.machine.write(f"{WRAPPERS}/protected", f"apt {PROTECTED}\n")
        self.repository.configure(self.machine)

    def publish(self, *packages: Package) -> None:
        """Add packages to the source, and have the host read its index."""
        self.repository.publish(*packages)
        self.update()

    def withdraw(self, *packages: Package) -> None:
        """Take packages out of the source, and have the host read its index."""
        self.repository.withdraw(*packages)
        self.update()

    def update(self) -> None:
        self.repository.show(self.machine)

    def wrapper(
        self, name: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> Output:
        done = self.machine.run(
            f"{WRAPPERS}/{name}", *arguments, environment=environment, timeout=300
        )
        return Output(exit_code=done.exit_code, stdout=done.stdout, stderr=done.stderr)

    def asked(self, operation: str, package: str) -> Operation:
        return CATALOGUE.parse(operation, {"package": package})

    def held(self, operation: str, package: str) -> Mapping[str, JsonValue]:
        """Return what an approval would be bound to."""
        return self.inspect(self.asked(operation, package)).precondition

    def refusal(
        self,
        operation: str,
        package: str,
        precondition: Mapping[str, JsonValue] | None = None,
    ) -> HostAgentError:
        """Return why a change is refused; dpkg says of every package what it said before."""
        before = self.state()
        asked = self.asked(operation, package)
        try:
            output = self.perform(asked, precondition)
        except HostAgentError as error:
            refused = error
        else:
            assert output.exit_code != 0, output.stdout
            refused = asked.spec.failure(asked.params, output)
        assert self.state() == before
        return refused

    def change(self, operation: str, package: str) -> Output:
        """Do a change as it is approved, and have it looked at afterwards."""
        asked = self.asked(operation, package)
        held = self.inspect(asked).precondition
        output = self.perform(asked, held)
        assert output.exit_code == 0, (output.stdout, output.stderr)
        assert self.probe(asked, held)
        return output

    def state(self) -> str:
        """Return what dpkg says of every package: its version, status and wish."""
        listed = "${binary:Package} ${Version} ${db:Status-Abbrev}\n"
        return self.machine.must("dpkg-query", "--show", f"--showformat={listed}")

    def version(self, package: str) -> str | None:
        """Return the installed version of a package, whole; None where it is not there."""
        shown = "--showformat=${db:Status-Status} ${Version}"
        done = self.machine.run("dpkg-query", "--show", shown, package)
        status, _, version = done.stdout.partition(" ")
        return version if done.exit_code == 0 and status == "installed" else None

    def fresh(self) -> str:
        """Return the name of a package that no other test has."""
        return f"trial-{next(_NUMBERS)}"


@pytest.fixture(scope="module", params=PACKAGED, ids=lambda release: release.suite)
def apt(
    request: pytest.FixtureRequest, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AptHost]:
    repository = PackageRepository(tmp_path_factory.mktemp("apt"))
    try:
        with Machine(cache, request.param) as machine:
            host = AptHost(machine=machine, repository=repository)
            host.prepare()
            host.publish(Package(name="unrelated", version="1"))
            yield host
    finally:
        repository.close()


def test_a_package_comes_with_what_it_needs_and_is_upgraded(apt: AptHost) -> None:
    name = apt.fresh()
    first = Package(
        name=name,
        version="1.0",
        fields={"Depends": f"lib{name} (>= 1.0)"},
        files={f"/etc/{name}.conf": "first\n"},
    )
    apt.publish(first, Package(name=f"lib{name}", version="1.0"))
    preview = apt.inspect(apt.asked("apt.install", name)).preview
    assert preview.summary == "Installs 1.0; 1 other comes; nothing is removed."
    assert {f"{name} 1.0 comes", f"lib{name} 1.0 comes"} <= set(preview.details)

    apt.change("apt.install", name)
    assert (apt.version(name), apt.version(f"lib{name}")) == ("1.0", "1.0")

    apt.machine.write(f"/etc/{name}.conf", "mine\n")
    apt.publish(
        Package(
            name=name,
            version="1:0.9~rc1-1",
            fields={"Depends": f"lib{name} (>= 1.1), more-{name}"},
            files={f"/etc/{name}.conf": "second\n"},
        ),
        Package(name=f"lib{name}", version="1.1"),
        Package(name=f"more-{name}", version="3"),
    )
    preview = apt.inspect(apt.asked("apt.upgrade", name)).preview
    assert preview.summary == (
        "Upgrades it from 1.0 to 1:0.9~rc1-1; 1 other comes and 1 other changes;"
        " nothing is removed."
    )
    assert {
        f"{name} 1.0 -> 1:0.9~rc1-1",
        f"lib{name} 1.0 -> 1.1",
        f"more-{name} 3 comes",
    } <= set(preview.details)
    listed = apt.wrapper("apt-list", "upgradable")
    assert f"{name}\tall\t1.0\t1:0.9~rc1-1\tinstall\n" in listed.stdout

    apt.change("apt.upgrade", name)
    assert (apt.version(name), apt.version(f"lib{name}")) == ("1:0.9~rc1-1", "1.1")
    assert apt.machine.must("cat", f"/etc/{name}.conf") == "mine\n"
    assert name not in apt.wrapper("apt-list", "upgradable").stdout


# -- names -----------------------------------------------------------------------------------------


_NOT_NAMES = (
    *("-o", "--reinstall", "-oDpkg::Pre-Invoke::=id", "trial-first-", "trial-first."),
    *("trial-first/stable", "trial-first=1.0", "trial-first:amd64", "trial-first:any"),
    *("trial-*", "trial-firs?", "?name(trial)", "~ntrial", "^trial", "tests^", "trial[-]first"),
    *("/srv/packages/trial-first_1.0_all.deb", "./trial-first", "trial-first libtrial-first"),
    *("", "t", "Trial-first", "trial-first\n", "trial_first", "tri\u0430l-first", "a" * 129),
)


def test_a_name_that_apt_would_read_as_more_than_a_name_is_refused(apt: AptHost) -> None:
    apt.publish(Package(name="trial-first", version="1.0"))
    before = apt.state()
    for name in _NOT_NAMES:
        assert apt.wrapper("apt-inspect", "install", name).exit_code == 64, name
        for verb in ("install", "upgrade"):
            assert apt.wrapper(f"apt-{verb}", name, "0" * 64).exit_code == 64, name
        assert apt.wrapper("apt-show", name).exit_code == 64, name
        with pytest.raises(HostAgentError, match="package"):
            apt.asked("apt.install", name)
    assert apt.state() == before


def test_a_name_is_never_taken_for_another_that_it_is_like(apt: AptHost) -> None:
    apt.publish(Package(name="trial-first", version="1.0"))
    for name in ("trial-firs", "trial.first", "trial-first+", "trial-f.rst"):
        assert isinstance(apt.refusal("apt.install", name), HostNotFoundError)
        assert isinstance(apt.refusal("apt.upgrade", name), HostNotFoundError)
    apt.change("apt.install", "trial-first")


def test_a_name_with_signs_in_it_is_a_name_where_there_is_one(apt: AptHost) -> None:
    apt.publish(Package(name="g++x+", version="1.0"), Package(name="g++x", version="1.0"))
    apt.change("apt.install", "g++x+")
    assert (apt.version("g++x+"), apt.version("g++x")) == ("1.0", None)
    shown = apt.wrapper("apt-show", "g++x+")
    data = CATALOGUE.spec("apt.show").parse
    assert data is not None
    found = data(apt.asked("apt.show", "g++x+").params, shown)
    assert isinstance(found, dict)
    assert (found["installed"], found["candidate"], found["held"]) == ("1.0", "1.0", False)


# -- root's own lists ------------------------------------------------------------------------------


def test_what_root_does_not_list_is_refused_and_not_shown(apt: AptHost) -> None:
    before = apt.state()
    for wrapper, *arguments in (
        ("apt-inspect", "install", "unrelated"),
        ("apt-install", "unrelated", "0" * 64),
        ("apt-show", "unrelated"),
    ):
        assert apt.wrapper(wrapper, *arguments).exit_code == 77
    shown = apt.wrapper("apt-list", "installed").stdout
    assert "\nsudo\t" not in f"\n{shown}"
    assert "\nlibc6\t" in f"\n{shown}"
    assert apt.state() == before


def test_what_is_protected_is_changed_neither_itself_nor_along(apt: AptHost) -> None:
    name = apt.fresh()
    apt.publish(Package(name="vault", version="1.0"), Package(name="host-agent-x", version="1.0"))
    apt.publish(
        Package(name=name, version="1.0", fields={"Depends": "vault"}),
        Package(name=f"{name}-own", version="1.0", fields={"Depends": "host-agent-x"}),
    )
    for asked, other in ((name, "vault"), (f"{name}-own", "host-agent-x"), ("vault", "vault")):
        refused = apt.refusal("apt.install", asked)
        assert isinstance(refused, ProtectedError)
        assert other in refused.detail
    apt.publish(Package(name=f"{name}-free", version="1.0"))
    apt.change("apt.install", f"{name}-free")


# -- what a transaction must not do ----------------------------------------------------------------


@pytest.mark.parametrize("relation", ["Conflicts", "Breaks"])
def test_nothing_is_removed_for_it(apt: AptHost, relation: str) -> None:
    kept, name = apt.fresh(), apt.fresh()
    apt.publish(Package(name=kept, version="1.0"))
    apt.change("apt.install", kept)
    apt.publish(Package(name=name, version="1.0", fields={relation: f"{kept} (<< 9)"}))
    refused = apt.refusal("apt.install", name)
    assert isinstance(refused, ProtectedError)
    assert f"remove {kept}" in refused.detail
    apt.publish(Package(name=name, version="1.1"))
    apt.change("apt.install", name)


def test_what_the_host_needs_is_not_removed(apt: AptHost) -> None:
    name = apt.fresh()
    apt.publish(Package(name=name, version="1.0", fields={"Conflicts": "hostname, sudo"}))
    assert isinstance(apt.refusal("apt.install", name), (ProtectedError, HostFailedError))
    assert apt.version("hostname")


def test_nothing_is_taken_back_to_an_older_version(apt: AptHost) -> None:
    name = apt.fresh()
    old, new = Package(name=name, version="1.0"), Package(name=name, version="2.0")
    apt.publish(new)
    apt.change("apt.install", name)
    apt.publish(old)
    pinned = f"Package: {name}\nPin: version 1.0\nPin-Priority: 1001\n"
    apt.machine.write("/etc/apt/preferences.d/tests", pinned)
    refused = apt.refusal("apt.upgrade", name)
    apt.machine.path("/etc/apt/preferences.d/tests").unlink()
    assert isinstance(refused, ProtectedError)
    assert "back to 1.0" in refused.detail
    assert isinstance(apt.refusal("apt.upgrade", name), HostFailedError)  # nothing newer


def test_what_is_held_stays_and_nothing_goes_past_it(apt: AptHost) -> None:
    name = apt.fresh()
    library = f"lib{name}"
    apt.publish(Package(name=library, version="1.0"), Package(name=name, version="1.0"))
    apt.change("apt.install", name)
    apt.machine.must("apt-get", "-qq", "install", library)
    apt.publish(
        Package(name=library, version="2.0"),
        Package(name=name, version="2.0", fields={"Depends": f"{library} (>= 2.0)"}),
    )
    for held in (name, library):
        apt.machine.must("apt-mark", "hold", held)
        refused = apt.refusal("apt.upgrade", name)
        assert isinstance(refused, (ProtectedError, HostFailedError)), refused.detail
        apt.machine.must("apt-mark", "unhold", held)
    apt.change("apt.upgrade", name)
    assert (apt.version(name), apt.version(library)) == ("2.0", "2.0")


def test_a_package_that_nobody_signed_is_not_installed(apt: AptHost, tmp_path: Path) -> None:
    name = apt.fresh()
    file = apt.repository.build(Package(name=name, version="1.0"))
    place = "/srv/unsigned"
    apt.machine.must("mkdir", "-p", place)
    apt.machine.write(f"{place}/{file.name}", file.read_bytes())
    apt.machine.write(f"{place}/Packages", apt.repository.entry(file))
    listed = f"deb [allow-insecure=yes] file:{place} ./\n"
    apt.machine.write("/etc/apt/sources.list.d/unsigned.list", listed)
    lax = 'APT::Get::AllowUnauthenticated "true";\nAPT::Get::force-yes "true";\n'
    apt.machine.write("/etc/apt/apt.conf.d/zz-lax", lax)
    try:
        apt.machine.must("apt-get", "-q", "update")
        assert f"file:{place}" in apt.machine.must("apt-cache", "policy", name)
        refused = apt.refusal("apt.install", name)
    finally:
        apt.machine.path("/etc/apt/sources.list.d/unsigned.list").unlink()
        apt.machine.path("/etc/apt/apt.conf.d/zz-lax").unlink()
        apt.update()
    assert isinstance(refused, HostFailedError)
    assert "authenticated" in refused.detail
    apt.publish(Package(name=name, version="1.0"))
    apt.change("apt.install", name)


def test_a_package_of_no_configured_source_is_not_there(apt: AptHost) -> None:
    package = Package(name=apt.fresh(), version="1.0")
    file = apt.repository.build(package)
    apt.machine.write(f"/root/{file.name}", file.read_bytes())
    cached = f"/var/cache/apt/archives/{file.name}"
    apt.machine.write(cached, file.read_bytes())
    assert isinstance(apt.refusal("apt.install", package.name), HostNotFoundError)
    apt.machine.path(cached).unlink()
    apt.publish(package)
    apt.change("apt.install", package.name)


# -- between approval and run ----------------------------------------------------------------------


def test_another_version_than_was_approved_is_not_installed(apt: AptHost) -> None:
    name = apt.fresh()
    apt.publish(Package(name=name, version="1.0"))
    held = apt.held("apt.install", name)
    apt.publish(Package(name=name, version="1.1"))
    assert isinstance(apt.refusal("apt.install", name, held), TargetChangedError)
    apt.change("apt.install", name)


def test_other_bytes_of_the_approved_version_are_not_installed(apt: AptHost) -> None:
    package = Package(name=apt.fresh(), version="1.0")
    apt.publish(package)
    held = apt.held("apt.install", package.name)
    other = Package(name=package.name, version="1.0", scripts={"postinst": "touch /run/other"})
    apt.publish(other)
    refused = apt.refusal("apt.install", package.name, held)
    assert isinstance(refused, TargetChangedError)
    apt.publish(package)
    held = apt.held("apt.install", package.name)
    built = apt.repository.build(other)
    apt.machine.write(f"{SOURCE}/{package.file}", built.read_bytes())  # its index is as it was
    refused = apt.refusal("apt.install", package.name, held)
    assert isinstance(refused, (HostFailedError, TargetChangedError))
    apt.update()
    apt.change("apt.install", package.name)
    assert not apt.machine.path("/run/other").exists()


def test_apt_itself_asks_again_right_before_dpkg(apt: AptHost) -> None:
    name = apt.fresh()
    apt.publish(Package(name=name, version="1.0"))
    digest = str(apt.held("apt.install", name)["transaction"]).removeprefix("sha256:")
    asked = f"{WRAPPERS}/apt-inspect"

    def install(held: str) -> int:
        return apt.machine.run(
            *("apt-get", "--yes", "-o", f"DPkg::Pre-Install-Pkgs::={asked} held {held}"),
            *("-o", f"DPkg::Tools::Options::{asked}::Version=3"),
            *("-o", f"DPkg::Tools::Options::{asked}::InfoFD=20", "install", name),
        ).exit_code

    before = apt.state()
    assert install("0" * 64) == 100
    assert apt.state() == before
    assert apt.wrapper("apt-inspect", "held", digest).exit_code == 64  # not by apt
    assert install(digest) == 0
    assert apt.version(name) == "1.0"


# -- dpkg itself -----------------------------------------------------------------------------------

_LOCK = """\
import fcntl, pathlib, signal
with open("/var/lib/dpkg/lock-frontend", "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    pathlib.Path("/run/locked").touch()
    signal.pause()
"""


def test_while_another_works_on_the_packages_it_says_so(apt: AptHost) -> None:
    name = apt.fresh()
    apt.publish(Package(name=name, version="1.0"))
    unit = "lock-holder.service"
    apt.machine.write("/root/lock.py", _LOCK)
    apt.machine.must("systemd-run", "--quiet", f"--unit={unit}", "python3", "/root/lock.py")
    apt.machine.until(apt.machine.path("/run/locked").exists, "nobody took the lock")
    try:
        refused = apt.refusal("apt.install", name)
    finally:
        apt.machine.must("systemctl", "kill", "--signal=KILL", unit)
        apt.machine.path("/run/locked").unlink()
    assert isinstance(refused, HostBusyError)
    apt.machine.until(
        lambda: apt.machine.run("systemctl", "is-active", unit).exit_code != 0, "it holds the lock"
    )
    apt.change("apt.install", name)


def test_after_an_interrupted_dpkg_nothing_is_begun(apt: AptHost) -> None:
    name = apt.fresh()
    apt.publish(Package(name=name, version="1.0"))
    apt.machine.write("/var/lib/dpkg/updates/0000", "")
    refused = apt.refusal("apt.install", name)
    apt.machine.must("dpkg", "--configure", "-a")
    assert isinstance(refused, HostFailedError)
    assert "dpkg --configure -a" in refused.detail
    apt.change("apt.install", name)


def test_a_script_that_fails_is_a_failure_that_says_what_is_left(apt: AptHost) -> None:
    name, next_one = apt.fresh(), apt.fresh()
    apt.publish(
        Package(name=name, version="1.0", scripts={"postinst": "exit 3"}),
        Package(name=next_one, version="1.0"),
    )
    asked = apt.asked("apt.install", name)
    held = apt.inspect(asked).precondition
    output = apt.perform(asked, held)
    failed = asked.spec.failure(asked.params, output)
    assert isinstance(failed, HostFailedError)
    assert f"{name} is half-configured" in failed.detail
    assert not apt.probe(asked, held)

    refused = apt.refusal("apt.install", next_one)
    assert isinstance(refused, HostFailedError)
    assert name in refused.detail
    apt.machine.must("dpkg", "--purge", name)
    apt.change("apt.install", next_one)


def test_configuration_files_stay_whatever_dpkg_is_told_elsewhere(apt: AptHost) -> None:
    name = apt.fresh()
    where = f"/etc/{name}.conf"
    apt.publish(Package(name=name, version="1.0", files={where: "first\n"}))
    apt.change("apt.install", name)
    apt.machine.write(where, "mine\n")
    apt.publish(Package(name=name, version="2.0", files={where: "second\n"}))
    new = 'Dpkg::Options { "--force-confnew"; };\n'
    apt.machine.write("/etc/apt/apt.conf.d/zz-new", new)
    try:
        apt.change("apt.upgrade", name)
    finally:
        apt.machine.path("/etc/apt/apt.conf.d/zz-new").unlink()
    assert apt.machine.must("cat", where) == "mine\n"
    assert apt.machine.must("cat", f"{where}.dpkg-dist") == "second\n"


def test_the_preview_names_the_running_units_of_what_changes(apt: AptHost) -> None:
    name = apt.fresh()
    unit = f"{name}.service"
    files = {
        f"/usr/lib/systemd/system/{unit}": "[Service]\nExecStart=/bin/sleep infinity\n",
        f"/usr/lib/systemd/system/{name}-idle.service": "[Service]\nExecStart=/bin/true\n",
    }
    apt.publish(Package(name=name, version="1.0", files=files))
    apt.change("apt.install", name)
    apt.publish(Package(name=name, version="2.0", files=files))
    apt.machine.must("systemctl", "daemon-reload")
    details = apt.inspect(apt.asked("apt.upgrade", name)).preview.details
    assert details[0] == "No running unit is of these packages."
    apt.machine.must("systemctl", "start", unit)
    details = apt.inspect(apt.asked("apt.upgrade", name)).preview.details
    assert details[0] == f"Its scripts may restart what runs: {unit}"
    apt.machine.must("systemctl", "stop", unit)
