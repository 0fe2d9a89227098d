"""The page of the checks, made from the checks: `python -m docs.tools.check_reference`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from conformance.checks import GROUPS
from conformance.checks.invalid import INVALID

if TYPE_CHECKING:
    from conformance.check import Check, Checks

__all__ = ["document"]

HEADER = """\
# Check your own Executor

Made by `make docs` from the checks themselves.

Your Executor keeps the [contract](../executor/openapi.yaml), and a program shows whether it does:

```
dispatcher conformance http://executor:8000 --service PaymentService
```

It prints a row for each check while they run. Faults are applied to paths without traffic, and are gone at the end,
even after Ctrl-C.

```
result   grade        check
passed   required     a fault ends by itself
failed   recommended  the same key is the same fault
         expected     the same apply_id twice
         seen         f-1, then f-2
         do           Set idempotent_apply = false: an apply without an answer is never repeated then
skipped  required     an abort hits the traffic
         because      no --probe was given
```

| grade | means |
|---|---|
| required | the dispatcher cannot keep its promises otherwise. If such a check fails, the exit code is 1 |
| recommended | an Executor may be without it. The row says what that costs, or what to configure |

A check that cannot be made is `skipped`, with the reason, and never `passed`. The last line names the settings that
your Executor needs ([which kind is mine?](drivers.md#which-kind-of-executor-is-mine)). `--json` prints the same as
[one line](json.md#conformance), and `--junit FILE` writes it for CI servers.

## What the checks need

| option | for checks of |
|---|---|
| `--token`, or `EXECUTOR_TOKEN` | calls without a token, which must be refused |
| `--max-active-faults N` | applies beyond the limit. They take N places for some seconds |
| `--probe URL`, `--probe-host HOST` | what requests meet, and how they are counted. Give a path without other traffic, as the service's callers reach it: faults hit it |
| `--kill COMMAND` and `--start COMMAND` | faults and state if the Executor is killed |
| `--hang COMMAND` and `--resume COMMAND` | faults if the Executor hangs |

Commands are run without a shell. Each must end within two minutes; what it starts in the background goes on. For an
Executor in a container:

```
dispatcher conformance http://executor:8000 --service PaymentService \\
    --probe http://payment:8080/api/v1/pay --max-active-faults 200 \\
    --kill "docker kill executor" --start "docker start executor" \\
    --hang "docker pause executor" --resume "docker unpause executor"
```

`docker pause` must not suspend the data plane: without any answer to requests, the check of a hang is skipped. If both
share a container, as with the reference Executor, `--hang` must send `kill -STOP` to the Executor's process, and
`--resume` must send `kill -CONT`.

The Executor is away for 6 seconds each time. Do this in a test environment. With the reference Executor, give it a
`--state-dir` and a service of your own, because its `--sample` services end with it.

"""  # noqa: E501 (lines of Markdown, and rows of tables)

TITLES = {
    "BASICS": "Apply, end, report",
    "STOPS": "Stop",
    "KEYS": "Repeated and late applies, the list",
    "TRUTH": "Windows, counts and doubts",
    "REFUSALS": "Refusals",
    "HITS": "What requests meet",
    "CAPABILITIES": "Capabilities",
    "EVERYTHING": "Stop everything",
    "SURVIVAL": "Kills, hangs and restarts",
    "LAST": "At the end",
}


def document() -> str:
    """The Markdown text."""
    sections = [_section(TITLES[name], checks) for name, checks in GROUPS.items() if checks is not INVALID]
    return HEADER + "\n".join([*sections, _invalid()])


def _section(title: str, checks: Checks) -> str:
    head = f"## {title}\n\n| check | grade | expected | needs |\n|---|---|---|---|\n"
    return head + "".join(map(_row, checks))


def _row(check: Check) -> str:
    needs = ", ".join(each.name for each in check.needs)
    return f"| {check.name} | {check.grade} | {check.promise} | {needs} |\n"


def _invalid() -> str:
    """All have one grade and one expectation."""
    names = "".join(f"- {check.name}\n" for check in INVALID)
    return f"## Applies that are refused\n\nThe answer is 400. All are {INVALID[0].grade}.\n\n{names}"


if __name__ == "__main__":
    sys.stdout.write(document())
