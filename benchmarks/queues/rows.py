"""What is measured: rows in three groups. Each row measures several cases, which are its columns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from benchmarks.queues import measurements
from benchmarks.queues.contenders import CONTENDERS, DURABLE, OURS, RIVAL
from benchmarks.queues.measurements import Case
from benchmarks.queues.runs import Line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.stage.program import Figures

BOTH = [OURS, RIVAL]
MESSAGES = [*BOTH, "dramatiq", "celery_retry"]
IN_FLIGHT = (1_000, 20_000, 100_000)
OF_PEER = "processes_of_Taskiq"
"""The row of growth that measures Taskiq, which has more processes than cores, too."""


@dataclass(frozen=True)
class Row:
    """One measurement."""

    measure: Callable[[Case], Figures]
    cases: Mapping[str, Case]
    rounds: int = 1
    """How often the first two columns are measured. The others are measured once."""

    columns: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """If the row is a table of its own: title of a column, to the figure's name and its digits."""


def compared(
    measure: Callable[[Case], Figures], names: Sequence[str], rounds: int = 1, **options: int
) -> Row:
    """A row whose columns are contenders. Those that take longer get fewer plans."""
    case = Case(**options)  # type: ignore[arg-type]
    cases = {
        name: replace(case, contender=name, plans=int(case.plans * CONTENDERS[name].share)) for name in names
    }
    return Row(measure, cases, rounds)


def grown(
    measure: Callable[[Case], Figures], cases: Mapping[int, Case], columns: Mapping[str, tuple[str, int]]
) -> Row:
    """A row whose columns are sizes."""
    return Row(measure, {f"{size:,}": case for size, case in cases.items()}, columns=columns)


SPEED = {"plans/s": ("per_s", 0), "CPU of a plan, ms": ("cpu_ms", 2), "workers, MB": ("workers_mb", 0)}
QUEUES = {
    "throughput": compared(measurements.at_once, list(CONTENDERS), rounds=2),
    "slow_executor": compared(measurements.at_once, BOTH, delay_ms=10, threads=16),
    "flower": compared(measurements.at_once, [OURS], flower=True),
    "makespan": compared(measurements.at_once, BOTH, rounds=2, duration_s=10),
    "lag": compared(measurements.steady, [*BOTH, "restate"], plans=1_500, duration_s=5),
    "submission": compared(measurements.submission, MESSAGES, plans=8_000),
    "kill": compared(measurements.killed, [*MESSAGES, *DURABLE], plans=500, duration_s=5),
}
GROWTH = {
    "in_flight": Row(
        measurements.in_flight,
        {OURS: Case(plans=2_000, background=IN_FLIGHT)},
        columns=SPEED
        | {"workers grown, MB": ("workers_grown_mb", 1), "Redis for one in flight, KB": ("redis_kb", 2)},
    ),
    "processes": grown(measurements.at_once, {count: Case(workers=count) for count in (1, 2, 4, 8)}, SPEED),
    OF_PEER: grown(
        measurements.at_once, {count: Case(contender=RIVAL, workers=count) for count in (1, 2, 4, 8)}, SPEED
    ),
    "traces": grown(
        measurements.at_once,
        {
            size: Case(trace_bytes=size, plans=min(2_000, 200_000_000 // size))
            for size in (1_000, 100_000, 2_000_000)
        },
        SPEED | {"MB/s": ("mb_per_s", 1), "kept in Redis of a plan, KB": ("kept_kb", 1)},
    ),
    "kept": grown(measurements.kept, {20_000: Case(plans=20_000)}, {"workers grown, KB": ("left_kb", 0)}),
}
ENDURANCE = {
    "worker_killed": Row(measurements.killed, {OURS: Case(plans=1_000, duration_s=5)}),
    "redis_killed": Row(measurements.killed, {OURS: Case(plans=1_000, duration_s=5, redis=True)}),
    "idle": Row(measurements.idle, {OURS: Case()}),
    "small_worker": Row(
        measurements.at_once, {OURS: Case(plans=500, duration_s=5, warm=20, workers=1, threads=2)}
    ),
}
GROUPS = {"queues": QUEUES, "growth": GROWTH, "endurance": ENDURANCE}
ROWS = QUEUES | GROWTH | ENDURANCE

LINES = [
    Line("Plans of 1 s at once: plans/s", "throughput", ["per_s"]),
    Line("... without the second that all of them last", "throughput", ["without_wait_per_s"]),
    Line("... Executor that answers in 10 ms", "slow_executor", ["per_s"]),
    Line("... while Flower watches", "flower", ["per_s"]),
    Line("... not back after two minutes", "throughput", ["missing"]),
    Line("4,000 plans of 10 s at once: time, s", "makespan", ["took_s"], 1),
    Line("Lag after the fault's end, p50 / p95 / p99, ms", "lag", ["p50_ms", "p95_ms", "p99_ms"]),
    Line("From submission to apply on an idle fleet, ms", "lag", ["first_apply_ms"], 1),
    Line("Plans submitted in a second: many / one by one", "submission", ["per_s", "singly_per_s"]),
    Line("CPU of a plan, ms", "throughput", ["cpu_ms"], 2),
    Line(
        "... of workers / servers / submitter",
        "throughput",
        ["cpu_ms_workers", "cpu_ms_store", "cpu_ms_submitter"],
        2,
    ),
    Line("Bytes to and from Redis of a plan", "throughput", ["redis_bytes"]),
    Line("Memory of both workers, MB", "throughput", ["workers_mb"]),
    Line("kill -9 of a worker with plans in flight: ended / lost so far", "kill", ["ended", "lost"]),
    Line("... how late, p50 / max, s", "kill", ["late_p50_s", "late_max_s"], 2),
    Line("... faults applied twice", "kill", ["doubled"]),
]


def order(row: Row, rounds: int) -> list[str]:
    """Whose turn it is: the first two forwards and backwards in turns, and then each of the others once."""
    names = list(row.cases)
    turns = [
        each for number in range(rounds) for each in (names[:2] if number % 2 == 0 else reversed(names[:2]))
    ]
    return turns + names[2:]
