"""Calibration: what observations say, compared with what really happened.

`python -m campaigns.calibration`. A real worker carries out 40 plans on the reference Executor, and its Envoy
has real traffic. Clients note what became of each request, the service counts arrivals, and Envoy itself is
asked which faults it has. The figures below "counted" are what the clients saw in the window that the
observation claims. A plan is outside if a figure of its observation differs by more than that:

    requests    1 %
    error_rate  0.01
    latency_ms  10 %, or 2 ms
    started_at  0.3 s from when the fault was in force
    ended_at    0.3 s from when it no longer was

The 95 % interval of the error rate should hold the share that was set: an aborted request is an error, and so
is one that takes longer than its client waits. With `--slow-data-plane` the Executor is a stub whose data
plane polls every 5 s. Then each fault must also have been in force only while its target was reserved for it.
In three of its lanes the control plane learns nothing of the data plane, as that of the policy API. There the
worker's probe observes, and the data plane records the outcomes of its requests.

It takes about two minutes, and a machine that does nothing else: a latency of 1 ms is measured to 2 ms. Exit
code 1 if more than two plans are outside, or fewer than 34 intervals of 40 hold. A fault that was in force
outside of its reservation also counts.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import uvloop
from pydantic import SecretStr

from benchmarks.stage.commands import free_port
from benchmarks.stage.processes import open_more_files
from benchmarks.stage.program import print_table, run
from benchmarks.stage.stage import reference_executor, stage
from campaigns.calibration.lanes import LANES, as_variables, probed
from campaigns.calibration.report import HEADER, summary
from campaigns.calibration.run import Run
from campaigns.calibration.witness import EnvoyWitness, JournalWitness, unreserved
from campaigns.fleet import released_at
from dispatcher import Dispatcher, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.stage.stage import Stage
    from campaigns.calibration.lanes import Lane
    from dispatcher import PlanHandle

POLL_S = 5
"""How often the slow data plane polls."""


def main(*, slow_data_plane: bool = False, smoke: bool = False) -> None:
    """Calibrate, print, and exit with 1 if observations differ from what happened.

    With `smoke` there is one plan, to see that it runs.
    """
    open_more_files()
    lanes = [replace(LANES[0], percentages=(100,))] if smoke else LANES
    calibrate = with_slow_data_plane if slow_data_plane else with_envoy
    sys.exit(0 if calibrate(lanes) else 1)


def with_envoy(lanes: Sequence[Lane]) -> bool:
    """The calibration with the reference Executor; whether all is well."""
    proxy_port, service_port = free_port(), free_port()
    with stage(reference_executor(proxy_port, service_port, *(lane.service for lane in lanes))) as made:
        made.start_workers(1)
        with Dispatcher(made.settings) as dispatcher:
            witness = EnvoyWitness(made.executor_said["admin"])
            calibration = Run(dispatcher, ("127.0.0.1", proxy_port), witness, slow=False)
            return report(calibration, lanes, service_port, "calibration")


def with_slow_data_plane(lanes: Sequence[Lane]) -> bool:
    """The calibration with a stub whose data plane is slow; whether all is well."""
    proxy_port = free_port()
    with stage(["campaigns.calibration.slow_executor", "{port}", str(proxy_port), str(POLL_S)]) as made:
        settings = probed(lanes, made.executor_url, f"http://127.0.0.1:{proxy_port}", POLL_S)
        made.start_workers(1, as_variables(settings))
        with Dispatcher(Settings(redis_url=SecretStr(made.redis_url), **settings)) as dispatcher:
            witness = JournalWitness(made.executor_url)
            calibration = Run(dispatcher, ("127.0.0.1", proxy_port), witness, slow=True)
            good = report(calibration, lanes, free_port(), "calibration with a slow data plane")
            found = unreserved(uvloop.run(witness.forces()), released(made, calibration.handles))
    for sentence in found:
        print(f"outside of its reservation: {sentence}")
    print(f"reservations: faults in force outside of theirs={len(found)}")
    return good and not found


def report(calibration: Run, lanes: Sequence[Lane], service_port: int, name: str) -> bool:
    """Carry out the lanes and print the outcomes; whether that is good enough."""
    rows = uvloop.run(calibration.rows(lanes, service_port))
    lines, outside, good = summary(rows, calibration.requests)
    print_table(HEADER, (row.cells for row in rows))
    print(*lines, sep="\n")
    print(f"{name}: plans={len(rows)} outside={outside}", flush=True)
    return good


def released(made: Stage, handles: Sequence[PlanHandle]) -> dict[str, float]:
    """Until when each plan kept its target, by the Executor's id of its fault, in seconds since 1970."""
    records = made.records([handle.id for handle in handles])
    return {record.apply_id: released_at(record) for record in records if record and record.apply_id}


if __name__ == "__main__":
    run(main, __doc__)
