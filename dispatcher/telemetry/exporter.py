"""The fleet's metrics for Prometheus, and the one file that imports prometheus_client."""

from __future__ import annotations

import logging
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from dispatcher.errors import InvalidSettingsError, LedgerUnavailableError, RecordUnreadableError
from dispatcher.ledger.connection import impatient_client
from dispatcher.ledger.counts import plan_counts
from dispatcher.ledger.ledger import Ledger
from dispatcher.telemetry.metrics import executor_counts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from dispatcher.ledger.counts import PlanCounts
    from dispatcher.settings.settings import Settings
    from dispatcher.telemetry.metrics import ExecutorCounts

__all__ = ["FleetCollector", "serving"]

BOUNDS_S = tuple(digit * 10.0**power for power in range(-3, 2) for digit in (1, 1.5, 2, 3, 5, 7))
"""Upper bounds of the histogram's buckets, in seconds. The fleet's own buckets are finer by far."""

QUANTILES = (0.5, 0.95, 0.99)
BREAKER_STATES = ("closed", "open", "half_open", "disabled")

logger = logging.getLogger(__name__)


class FleetCollector(Collector):
    """Reads Redis with each scrape."""

    def __init__(self, ledger: Ledger, executors: Sequence[str]) -> None:
        self._ledger = ledger
        self._executors = executors
        self._complete = True

    def collect(self) -> Iterator[Metric]:
        """All metrics. While Redis is away, or its counts cannot be read, only whether it is up."""
        try:
            counts = executor_counts(self._ledger, self._executors)
            plans = plan_counts(self._ledger)
        except (LedgerUnavailableError, RecordUnreadableError) as exc:
            self._log(f"no metrics for now: {exc}", complete=False)
            yield _redis(up=isinstance(exc, RecordUnreadableError))
            return
        self._log("all metrics are there again", complete=True)
        yield _redis(up=True)
        named = dict(zip(self._executors, counts, strict=True))
        yield from _calls(named)
        yield from _latencies(named)
        yield from _breakers(named)
        yield from _plans(plans)
        yield from _steps(plans)

    def _log(self, what: str, *, complete: bool) -> None:
        if complete is not self._complete:
            logger.warning(what)
        self._complete = complete


@contextmanager
def serving(settings: Settings, host: str, port: int) -> Iterator[int]:
    """Answers scrapes as long as this lasts. Gives the port, which is chosen if 0 was asked for.

    Raises `InvalidSettingsError` if it cannot listen there.
    """
    with closing(Ledger(impatient_client(settings), settings)) as ledger:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(FleetCollector(ledger, list(settings.executors)))
        try:
            server, thread = start_http_server(port, host, registry)
        except (OSError, UnicodeError) as exc:  # UnicodeError: no host has such a name
            why = exc.strerror if isinstance(exc, OSError) else "it is not the name of a host"
            problem = f"{port} of {host} is not available: {why}"
            raise InvalidSettingsError(f"invalid arguments: port {problem}", [["port", problem]]) from exc
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _redis(*, up: bool) -> Metric:
    return GaugeMetricFamily("dispatcher_redis_up", "Whether Redis answers.", value=up)


def _calls(executors: dict[str, ExecutorCounts]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "dispatcher_executor_requests",
        "Calls to the Executor for plans, by kind, and by how they ended.",
        labels=["executor", "call", "outcome"],
    )
    retries = CounterMetricFamily(
        "dispatcher_executor_retries", "Calls that repeated one that had failed.", labels=["executor"]
    )
    succeeded = CounterMetricFamily(
        "dispatcher_executor_retries_succeeded", "Of these, those that were answered.", labels=["executor"]
    )
    for name, counts in executors.items():
        for (kind, outcome), number in counts.requests.items():
            requests.add_metric([name, kind, outcome], number)
        retries.add_metric([name], counts.retries)
        succeeded.add_metric([name], counts.retries_succeeded)
    yield from (requests, retries, succeeded)


def _latencies(executors: dict[str, ExecutorCounts]) -> Iterator[Metric]:
    histogram = HistogramMetricFamily(
        "dispatcher_executor_latency_seconds",
        "How long calls took that the Executor answered, or did not answer in time.",
        labels=["executor"],
    )
    quantiles = GaugeMetricFamily(
        "dispatcher_executor_latency_quantile_seconds",
        "What a share of all these calls did not exceed, within 1 %.",
        labels=["executor", "quantile"],
    )
    for name, counts in executors.items():
        latencies = counts.latencies
        bounds = [f"{bound:g}" for bound in BOUNDS_S]
        buckets = list(zip(bounds, latencies.at_most(BOUNDS_S), strict=True))
        histogram.add_metric([name], [*buckets, ("+Inf", latencies.count)], latencies.total_us / 1e6)
        for share in QUANTILES:
            quantiles.add_metric([name, f"{share:g}"], latencies.quantile_ms(share) / 1000)
    yield from (histogram, quantiles)


def _breakers(executors: dict[str, ExecutorCounts]) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "dispatcher_breaker_state",
        "1 for the state that the Executor's circuit breaker is in.",
        labels=["executor", "state"],
    )
    opens, half_opens, closes = (
        CounterMetricFamily(f"dispatcher_breaker_{what}", f"How often it has {done}.", labels=["executor"])
        for what, done in (
            ("opens", "opened"),
            ("half_opens", "let probes out after it had been open"),
            ("closes", "closed again"),
        )
    )
    for name, counts in executors.items():
        for each in BREAKER_STATES:
            state.add_metric([name, each], each == counts.breaker_state)
        opens.add_metric([name], counts.opens)
        half_opens.add_metric([name], counts.half_opens)
        closes.add_metric([name], counts.closes)
    yield from (state, opens, half_opens, closes)


def _plans(plans: PlanCounts) -> Iterator[Metric]:
    yield CounterMetricFamily("dispatcher_plans_submitted", "Plans taken on.", value=plans.submitted)
    ended = CounterMetricFamily("dispatcher_plans_ended", "Plans that have ended, by how.", labels=["state"])
    for state, number in plans.ended.items():
        ended.add_metric([state], number)
    yield ended
    in_flight = GaugeMetricFamily(
        "dispatcher_plans_in_flight", "Plans that have not ended, by state.", labels=["state"]
    )
    for state, number in plans.states.items():
        in_flight.add_metric([state], number)
    yield in_flight
    yield GaugeMetricFamily(
        "dispatcher_plans_waiting", "Plans in flight that no step is at work on.", value=plans.waiting
    )
    yield GaugeMetricFamily(
        "dispatcher_oldest_due_seconds",
        "For how long the plan has been due that has been due for the longest. 0: no plan is.",
        value=plans.oldest_due_s,
    )
    yield GaugeMetricFamily(
        "dispatcher_plans_set_aside", "Plans that another version wrote.", value=plans.set_aside
    )
    yield GaugeMetricFamily(
        "dispatcher_faults_in_doubt", "Faults that may be alive after their plans.", value=plans.in_doubt
    )
    yield GaugeMetricFamily("dispatcher_halted", "Whether no plans are taken.", value=plans.halted)


def _steps(plans: PlanCounts) -> Iterator[Metric]:
    yield SummaryMetricFamily(
        "dispatcher_step_lag_seconds",
        "By how much steps began after their plans were due.",
        count_value=plans.steps,
        sum_value=plans.late_s,
    )
    for name, what, value in (
        ("leases_lost", "Steps that did not come back before their leases ended.", plans.leases_lost),
        ("messages_lost", "Steps that began without the message they waited for.", plans.messages_lost),
    ):
        yield CounterMetricFamily(f"dispatcher_{name}", what, value=value)
