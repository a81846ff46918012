"""Stands in for systemctl, systemd-run, journalctl and logger where a test has no systemd.

Not imported: `systemd_host` puts it in the place of these programs, in a mount namespace of its
own. Its state is /run/state: `units/NAME` has the properties of a unit (a link is another name),
`on-VERB` the properties that a verb sets, `answer-PROGRAM` an exit status and what is printed.
Every call is kept in `calls`. Output is in the form that systemd 252 has.
"""

import json
import os
import sys
from pathlib import Path

STATE = Path("/run/state")
MULTIPLE = (
    *("RequiredBy", "RequisiteOf", "BoundBy", "ConsistsOf", "Conflicts", "ConflictedBy"),
    *("Requires", "Requisite", "BindsTo", "Wants", "Upholds", "Triggers", "WantedBy"),
)


def properties(name: str) -> dict[str, str]:
    """Return what is known of a unit; systemd answers for one that it does not have, too."""
    path = STATE / "units" / name
    shown = {"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}
    shown |= {"Id": name, "Names": name, "Description": name, "UnitFileState": ""}
    if path.exists():
        shown |= json.loads(path.read_text())
    return shown


def show(asked: list[str], units: list[str]) -> None:
    blocks = []
    for unit in units:
        known = properties(unit)
        names = [*known, *(name for name in MULTIPLE if name not in known)]
        lines = [f"{name}={known.get(name, '')}\n" for name in names if name in asked]
        blocks.append("".join(lines))
    sys.stdout.write("\n".join(blocks))


def change(verb: str, unit: str) -> None:
    path = (STATE / "units" / unit).resolve()
    effect = STATE / f"on-{verb}"
    if path.exists() and effect.exists():
        path.write_text(json.dumps(json.loads(path.read_text()) | json.loads(effect.read_text())))


def main() -> int:
    program, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    call = {"program": program, "arguments": arguments, "environment": dict(os.environ)}
    with (STATE / "calls").open("a") as calls:
        calls.write(json.dumps(call) + "\n")
    rest = [argument for argument in arguments if not argument.startswith("-")]
    for name in (f"answer-{program}-{rest[0] if rest else ''}", f"answer-{program}"):
        answer = STATE / name
        if answer.exists():
            code, stdout, stderr = json.loads(answer.read_text())
            sys.stdout.write(stdout)
            sys.stderr.write(stderr)
            return int(code)
    if program == "systemd-run":
        command = arguments[arguments.index("--") + 1 :]
        os.execv(command[0], command)
    if program == "systemctl" and rest[0] == "show":
        asked = next(one for one in arguments if one.startswith("--property="))
        show(asked.removeprefix("--property=").split(","), arguments[arguments.index("--") + 1 :])
    elif program == "systemctl":
        change(rest[0], arguments[-1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
