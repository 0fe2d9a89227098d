"""Checks that tests notice small changes of the ledger, the state machine and the breaker: `make mutants`.

mutmut makes the mutants and runs the tests (`[tool.mutmut]` in pyproject.toml). Its verdicts are counted:

    killed, timeout, segfault         a test failed, hung or crashed: the mutant is killed
    survived, no tests, suspicious    a survivor, which needs a reason in survivors.toml

The score of a part is the share of its mutants that are killed. The exit code is 1 if a score is below
`LEAST_SCORE` or if a survivor has no reason, and 2 if the run did not end.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tomllib
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant

ROOT = Path(__file__).resolve().parents[2]
REASONS = Path(__file__).with_name("survivors.toml")
LEAST_SCORE = 0.90
PARTS = {"ledger": "dispatcher.ledger.", "states": "workers.engine.", "breaker": "workers.breaker."}
KILLED = {"killed", "timeout", "segfault"}
SURVIVED = {"survived", "no tests", "suspicious"}
MOST_PROCESSES = 2


@dataclass(frozen=True)
class Change:
    """What a mutant changes, without the line numbers, so that it is found again after an edit nearby."""

    function: str
    was: str
    is_now: str


@dataclass
class Part:
    """The verdicts on the mutants of one part."""

    verdicts: dict[str, str] = field(default_factory=dict)

    @property
    def killed(self) -> int:
        return sum(verdict in KILLED for verdict in self.verdicts.values())

    @property
    def survivors(self) -> list[str]:
        return [name for name, verdict in self.verdicts.items() if verdict in SURVIVED]

    @property
    def score(self) -> float:
        """From 0 to 1. A part without mutants has none killed."""
        return self.killed / max(1, self.killed + len(self.survivors))

    def unfinished(self) -> list[str]:
        return [name for name, verdict in self.verdicts.items() if verdict not in KILLED | SURVIVED]


def mutmut(*arguments: str, quiet: bool = True) -> str:
    """What the command prints. Raises `CalledProcessError`."""
    program = Path(sys.executable).with_name("mutmut")
    done = subprocess.run(
        ["nice", "-n", "19", program, *arguments],
        cwd=ROOT,
        check=True,
        text=True,
        stdout=subprocess.PIPE if quiet else None,
    )
    return done.stdout or ""


def verdicts() -> dict[str, str]:
    """The mutants' names with mutmut's word on each."""
    lines = [line.strip() for line in mutmut("results", "--all", "true").splitlines() if ": " in line]
    return dict(tuple(line.rsplit(": ", 1)) for line in lines)


def parts_of(found: dict[str, str], every: int) -> dict[str, Part]:
    """The verdicts by part; of every so many mutants one, which its name chooses."""
    parts = {name: Part() for name in PARTS}
    for mutant, verdict in found.items():
        if is_chosen(mutant, every):
            [name] = [name for name, module in PARTS.items() if mutant.startswith(module)]
            parts[name].verdicts[mutant] = verdict
    return parts


def is_chosen(mutant: str, every: int) -> bool:
    return zlib.crc32(mutant.encode()) % every == 0


def change_of(mutant: str) -> Change:
    """The change that a mutant makes to its function."""
    diff = get_diff_for_mutant(mutant).splitlines()
    was = [line[1:].strip() for line in diff if line.startswith("-") and not line.startswith("---")]
    is_now = [line[1:].strip() for line in diff if line.startswith("+") and not line.startswith("+++")]
    function = mutant.rpartition("__mutmut_")[0].replace("xǁ", "").replace("ǁ", ".").replace(".x_", ".")
    return Change(function, " ".join(was), " ".join(is_now))


def reasons() -> dict[Change, str]:
    """Why each known survivor may live."""
    listed = tomllib.loads(REASONS.read_text("utf-8")).get("survivor", [])
    return {Change(each["function"], each["was"], each["is_now"]): each["reason"] for each in listed}


def entry(change: Change) -> str:
    """As survivors.toml holds it."""
    pairs = {"function": change.function, "was": change.was, "is_now": change.is_now, "reason": ""}
    lines = [
        f"{name} = '''{value}'''" if name != "reason" else f'{name} = ""' for name, value in pairs.items()
    ]
    return "\n".join(["[[survivor]]", *lines])


def without_reason(parts: dict[str, Part]) -> list[Change]:
    """Prints each survivor with its reason. Those that have none are returned."""
    known, missing = reasons(), []
    for part in parts.values():
        for mutant in part.survivors:
            change = change_of(mutant)
            if known.get(change):
                print(f"survivor: {change.function}: {change.is_now}  ({known[change]})")
            else:
                missing.append(change)
    return missing


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="only these; all by default")
    parser.add_argument("--keep", action="store_true", help="go on with the verdicts of the last run")
    parser.add_argument("--no-run", action="store_true", help="only read the verdicts of the last run")
    parser.add_argument(
        "--every", type=int, default=1, help="count one mutant of so many, chosen by its name"
    )
    given = parser.parse_args()
    if not (given.keep or given.no_run):
        shutil.rmtree(ROOT / "mutants", ignore_errors=True)
    wanted = given.parts or list(PARTS)
    if not given.no_run:
        patterns = [f"{PARTS[name]}*" for name in given.parts]
        mutmut("run", "--max-children", str(MOST_PROCESSES), *patterns, quiet=False)
    parts = {name: part for name, part in parts_of(verdicts(), given.every).items() if name in wanted}
    return report(parts)


def report(parts: dict[str, Part]) -> int:
    """Prints what was found, and returns the exit code."""
    for name, part in parts.items():
        counted = Counter(part.verdicts.values())
        print(f"{name}: " + ", ".join(f"{number} {verdict}" for verdict, number in sorted(counted.items())))
    unfinished = [mutant for part in parts.values() for mutant in part.unfinished()]
    if unfinished:
        print(f"the run did not end: {len(unfinished)} mutants have no verdict; `--keep` goes on with it")
        return 2
    missing = without_reason(parts)
    for change in missing:
        print(f"\nno reason in {REASONS.relative_to(ROOT)}:\n{entry(change)}")
    scores = " ".join(f"{name}={part.score:.2f}" for name, part in parts.items())
    print(f"mutants: {scores} survivors={sum(len(part.survivors) for part in parts.values())}")
    return int(bool(missing) or any(part.score < LEAST_SCORE for part in parts.values()))


if __name__ == "__main__":
    sys.exit(main())
