"""Checks that tests notice small changes of the ledger, the state machine and the breaker: `make mutants`.

mutmut makes the mutants and runs the tests (`[tool.mutmut]` in pyproject.toml). Its verdicts are counted:

    killed, timeout, segfault         a test failed, hung or crashed: the mutant is killed
    survived, no tests, suspicious    a survivor, which needs a reason in survivors.toml

A mutant that hung is tried a second time, because a busy machine may have been the cause.

The score of a part is the share of its mutants that are killed. The exit code is 1 if a score is below
`LEAST_SCORE`, or if a survivor has no reason. It is 2 if the run did not end.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = ROOT / "mutants"
STATISTICS = MUTANTS / "mutmut-stats.json"
REASONS = Path(__file__).with_name("survivors.toml")
LEAST_SCORE = 0.90
PARTS = {"ledger": "dispatcher.ledger.", "states": "workers.engine.", "breaker": "workers.breaker."}
KILLED = {"killed", "timeout", "segfault"}
SURVIVED = {"survived", "no tests", "suspicious"}
PROCESSES = 2


@dataclass(frozen=True)
class Change:
    """What a mutant changes, without line numbers: it is the same after an edit elsewhere in the file."""

    function: str
    was: str
    is_now: str


@dataclass(frozen=True)
class Kind:
    """Changes that are alike: without what `ignored` matches, a line is the same before and after."""

    ignored: re.Pattern[str]
    reason: str

    def has(self, change: Change) -> bool:
        """Whether the change is of this kind."""
        return self.ignored.sub("", change.was) == self.ignored.sub("", change.is_now)


@dataclass(frozen=True)
class Reasons:
    """Why mutants may live, in survivors.toml."""

    changes: Mapping[Change, str] = field(default_factory=dict)
    kinds: Sequence[Kind] = ()

    def of(self, change: Change) -> str:
        """The reason for the change, otherwise that for its kind. Empty if there is none."""
        kinds = (kind.reason for kind in self.kinds if kind.has(change))
        return self.changes.get(change) or next(kinds, "")


@dataclass
class Part:
    """The verdicts on the mutants of one part, by the mutants' names."""

    verdicts: dict[str, str] = field(default_factory=dict)

    @property
    def survivors(self) -> list[str]:
        """Names of the mutants that no test has killed."""
        return [name for name, verdict in self.verdicts.items() if verdict in SURVIVED]

    @property
    def hung(self) -> list[str]:
        """Names of the mutants whose tests did not end in time."""
        return [name for name, verdict in self.verdicts.items() if verdict == "timeout"]

    @property
    def unfinished(self) -> list[str]:
        """Names of the mutants that were not tried."""
        return [name for name, verdict in self.verdicts.items() if verdict not in KILLED | SURVIVED]

    @property
    def score(self) -> float:
        """The share of the killed ones, from 0 to 1. It is 0 if there are no mutants."""
        killed = sum(verdict in KILLED for verdict in self.verdicts.values())
        return killed / max(1, killed + len(self.survivors))


def mutmut(*arguments: str, quiet: bool = True) -> str:
    """What the command prints, if it is `quiet`. Raises `CalledProcessError`."""
    program = Path(sys.executable).with_name("mutmut")
    command = ["nice", "-n", "19", str(program), *arguments]
    output = subprocess.PIPE if quiet else None
    printed: str | None = subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=output).stdout
    return printed or ""


def run(mutants: Sequence[str], processes: int) -> None:
    """Try these mutants, so many at a time."""
    mutmut("run", "--max-children", str(processes), *mutants, quiet=False)


def verdicts(wanted: Sequence[str]) -> dict[str, Part]:
    """The wanted parts, as mutmut has stored them."""
    parts = parts_of(mutmut("results", "--all", "true"))
    return {name: parts[name] for name in wanted}


def parts_of(results: str) -> dict[str, Part]:
    """The verdicts by part, in what `mutmut results` prints."""
    parts = {name: Part() for name in PARTS}
    for line in results.splitlines():
        mutant, _, verdict = line.strip().rpartition(": ")
        for name, module in PARTS.items():
            if mutant.startswith(module):
                parts[name].verdicts[mutant] = verdict
    return parts


def change_of(mutant: str) -> Change:
    """The change that a mutant makes to its function."""
    diff = mutmut("show", mutant).splitlines()
    was = [line[1:].strip() for line in diff if line.startswith("-") and not line.startswith("---")]
    is_now = [line[1:].strip() for line in diff if line.startswith("+") and not line.startswith("+++")]
    function = mutant.rpartition("__mutmut_")[0].replace("xǁ", "").replace("ǁ", ".").replace(".x_", ".")
    return Change(function, " ".join(was), " ".join(is_now))


def known_survivors(text: str) -> Reasons:
    """The reasons in the text of survivors.toml. Raises `KeyError` for an incomplete entry."""
    stored = tomllib.loads(text)
    changes = {
        Change(each["function"], each["was"], each["is_now"]): each["reason"]
        for each in stored.get("survivor", [])
    }
    kinds = [Kind(re.compile(each["ignored"]), each["reason"]) for each in stored.get("kind", [])]
    return Reasons(changes, kinds)


def entry(change: Change) -> str:
    """What survivors.toml needs for this change, without its reason."""
    fields = {"function": change.function, "was": change.was, "is_now": change.is_now}
    return "\n".join(["[[survivor]]", *(f"{name} = '''{value}'''" for name, value in fields.items())])


def report(
    parts: Mapping[str, Part], reasons: Reasons, change_of: Callable[[str], Change] = change_of
) -> int:
    """Print what was found. The exit code of the program."""
    for name, part in parts.items():
        counted = sorted(Counter(part.verdicts.values()).items())
        print(f"{name}: " + ", ".join(f"{number} {verdict}" for verdict, number in counted))
    unfinished = sum(len(part.unfinished) for part in parts.values())
    if unfinished:
        print(f"the run did not end: {unfinished} mutants were not tried; `--keep` goes on with it")
        return 2
    survivors = [change_of(mutant) for part in parts.values() for mutant in part.survivors]
    without_reason = [change for change in survivors if not reasons.of(change)]
    for change in without_reason:
        print(f"\nno reason in {REASONS.relative_to(ROOT)}:\n{entry(change)}")
    scores = " ".join(f"{name}={part.score:.2f}" for name, part in parts.items())
    print(f"mutants: {scores} survivors={len(survivors)}")
    return int(bool(without_reason) or any(part.score < LEAST_SCORE for part in parts.values()))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all of them by default"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--keep", action="store_true", help="go on with a run that was broken off")
    how.add_argument(
        "--again", action="store_true", help="try the survivors of the last run once more, with today's tests"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=PROCESSES,
        metavar="N",
        help="mutants at a time (%(default)s); one that hangs takes none of a core",
    )
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    wanted = given.parts or list(PARTS)
    if given.keep or given.again:
        STATISTICS.unlink(missing_ok=True)  # which tests execute which function may have changed
        parts = verdicts(wanted).values()
        names = [name for part in parts for name in (part.survivors if given.again else part.unfinished)]
    else:
        shutil.rmtree(MUTANTS, ignore_errors=True)
        names = [f"{PARTS[name]}*" for name in wanted]
    if names:
        run(names, given.processes)
    hung = [name for part in verdicts(wanted).values() for name in part.hung]
    if hung := [name for name in hung if not given.again or name in names]:
        run(hung, given.processes)
    return report(verdicts(wanted), known_survivors(REASONS.read_text("utf-8")))


if __name__ == "__main__":
    sys.exit(main())
