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

import argparse
import json
import resource
import sys
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import uvloop
from pydantic import SecretStr

from benchmarks.stage import celery_worker, stage
from benchmarks.stage.processes import free_port
from campaigns.calibration.probed import PROBED, as_variables, settings_of
from campaigns.calibration.report import HEAD, summary
from campaigns.calibration.reservations import unreserved
from campaigns.calibration.run import Run
from campaigns.calibration.table import LANES
from campaigns.calibration.witness import EnvoyWitness, JournalWitness
from dispatcher import Dispatcher, Settings
from dispatcher.ledger.ledger import connect
from dispatcher.tasks.app import make_celery

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.stage import Stage
    from campaigns.calibration.table import Lane
    from dispatcher import PlanHandle

POLL_S = 5
"""How often the slow data plane polls."""


def main() -> None:
    """Calibrate, print, and exit with 1 if observations differ from what happened."""
    parser = argparse.ArgumentParser(prog="python -m campaigns.calibration", description=__doc__)
    parser.add_argument("--slow-data-plane", action="store_true", help=f"one that polls every {POLL_S} s")
    parser.add_argument("--smoke", action="store_true", help="one plan, to see that it runs")
    options = parser.parse_args()
    open_more_files()
    lanes = [replace(LANES[0], percentages=(100,))] if options.smoke else LANES
    calibrate = with_slow_data_plane if options.slow_data_plane else with_envoy
    sys.exit(0 if calibrate(lanes) else 1)


def with_envoy(lanes: Sequence[Lane]) -> bool:
    """The calibration with the reference Executor; whether all is well."""
    proxy_port, service_port = free_port(), free_port()
    services = [f"--service={lane.service}=127.0.0.1:{service_port}" for lane in lanes]
    serves = ["executor", "--port", "{port}", "--proxy-port", str(proxy_port), *services]
    with stage(serves=serves) as made:
        start_worker(made, {})
        with Dispatcher(made.settings) as dispatcher:
            run = Run(dispatcher, ("127.0.0.1", proxy_port), EnvoyWitness(admin_of(made)), stopping=False)
            return report(run, lanes, service_port, "calibration")


def with_slow_data_plane(lanes: Sequence[Lane]) -> bool:
    """The calibration with a stub whose data plane is slow; whether all is well."""
    proxy_port = free_port()
    serves = ["campaigns.calibration.slow_executor", "{port}", str(proxy_port), str(POLL_S)]
    with stage(serves=serves) as made:
        settings = settings_of(lanes, made.executor_url, f"http://127.0.0.1:{proxy_port}", POLL_S)
        start_worker(made, as_variables(settings))
        with Dispatcher(Settings(redis_url=SecretStr(made.redis_url), **settings)) as dispatcher:
            witness = JournalWitness(made.executor_url)
            run = Run(dispatcher, ("127.0.0.1", proxy_port), witness, stopping=True, probed=PROBED)
            good = report(run, lanes, free_port(), "calibration with a slow data plane")
            found = unreserved(uvloop.run(witness.forces()), released(made, run.handles))
    for sentence in found:
        print(f"outside of its reservation: {sentence}")
    print(f"reservations: faults in force outside of theirs={len(found)}")
    return good and not found


def start_worker(made: Stage, more: dict[str, str]) -> None:
    """One worker, ready, with these settings besides the stage's."""
    made.add_workers([celery_worker("workers.app", 0, made.environment | more)])
    with make_celery(made.settings) as app:
        made.wait_for_workers(app)


def report(run: Run, lanes: Sequence[Lane], service_port: int, name: str) -> bool:
    """Carry out the lanes and print the outcomes; whether that is good enough."""
    rows = uvloop.run(run.rows(lanes, service_port))
    print(HEAD)
    for row in rows:
        print(row)
    lines, outside, good = summary(rows, run.requests)
    print(*lines, sep="\n")
    print(f"{name}: plans={len(rows)} outside={outside}", flush=True)
    return good


def admin_of(made: Stage) -> str:
    """The Unix socket of Envoy's admin interface, which the Executor prints when it is ready."""
    lines = made.executor.log.read_text("utf-8").splitlines()
    return str(next(json.loads(line)["admin"] for line in lines if line.startswith("{")))


def released(made: Stage, handles: Sequence[PlanHandle]) -> dict[str, float]:
    """Until when each plan kept its target, by the Executor's id of its fault, in seconds since 1970."""
    with closing(connect(made.settings)) as ledger:
        records = ledger.read([handle.id for handle in handles])
    return {
        record.apply_id: max(record.ended_ms or 0, record.released_ms or 0) / 1000
        for record in records
        if record is not None and record.apply_id is not None
    }


def open_more_files() -> None:
    """A connection for each request that a delay holds needs more files than many systems allow at first."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
