"""`dispatcher doctor`"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from contextlib import closing
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

import typer
from kombu.exceptions import KombuError
from rich.table import Table
from rich.text import Text

from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.lines import echo
from dispatcher.cli.terminal import stdout
from dispatcher.errors import (
    ExecutorClientError,
    FaultLostError,
    LedgerRefusedError,
    LedgerUnavailableError,
)
from dispatcher.ledger.connection import RedisErrors
from dispatcher.ledger.ledger import connect
from dispatcher.ledger.presence import connected_workers, connection_name
from dispatcher.printable import printable
from dispatcher.settings.executors import Endpoint
from dispatcher.settings.settings import load_settings
from dispatcher.tasks.app import make_celery
from workers.commands.breaker import shared_breaker
from workers.commands.diagnostics import (
    Finding,
    Level,
    breaker,
    capabilities,
    clock,
    contract,
    fsync,
    in_doubt,
    latency,
    overdue,
    redis_server,
    worker_fleet,
)
from workers.commands.stalls import (
    applies,
    busy,
    hanging,
    leases,
    longest_step_s,
    retention,
    unreadable,
    unreceived,
)
from workers.drivers.registry import open_driver
from workers.drivers.transport import HttpTransport
from workers.orphans import unknown_faults
from workers.tasks.control import DESCRIBE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from celery import Celery

    from dispatcher.ledger.ledger import Ledger
    from dispatcher.settings.settings import Settings
    from workers.drivers.base import Driver

__all__ = ["doctor"]

PINGS = 11
WORKERS_WITHIN_SEC = 1.5
PATIENT_SEC = 3.0
"""For workers that are connected to Redis and have not answered within that time."""

MOST_READ = 500
"""Plans in flight that are read, at most."""

WIDEST_LEVEL = 7
STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "bold red"}
EXECUTOR_WITHIN_SEC = 5.0
NO_SUCH_FAULT = "doctor-no-such-fault"
UNAUTHORIZED = 401
MOST_NAMED = 5


def doctor(
    *,
    flower: Annotated[
        str | None, typer.Option(metavar="URL", help="Flower's address, to see whether it is protected.")
    ] = None,
    as_json: Annotated[bool, json_option("for each finding: what, level, message, fix")] = False,
) -> None:
    """Look at everything that a fleet needs: a line for each, ok, warning or error, with what to do.

    Exits with 1 if there is an error.
    """
    endpoint = None if flower is None else _endpoint(flower)
    settings = load_settings()
    levels: Counter[Level] = Counter()
    for finding in _findings(settings, endpoint):
        levels[finding.level] += 1
        if as_json:
            print_json(asdict(finding))
        elif stdout.is_terminal:
            stdout.print(_row(finding))
        else:
            echo(str(finding))
    if not as_json and stdout.is_terminal:
        stdout.print(_summary(levels))
    raise typer.Exit(int(levels[Level.ERROR] > 0))


def _row(finding: Finding) -> Table:
    """A finding on as many lines as it takes, what to do below what is wrong."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=WIDEST_LEVEL, style=STYLES[finding.level])
    table.add_column(overflow="fold")
    table.add_row(finding.level, f"{finding.what}: {finding.message}")
    if finding.fix:
        table.add_row("", Text(printable(f"-> {finding.fix}"), style="bold"))
    return table


def _summary(levels: Mapping[Level, int]) -> str:
    errors, warnings = levels.get(Level.ERROR, 0), levels.get(Level.WARNING, 0)
    if not errors + warnings:
        return "All is well."
    return f"{errors} error{'' if errors == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}"


def _findings(settings: Settings, flower: Endpoint | None) -> Iterator[Finding]:
    with closing(connect(settings)) as ledger:
        try:
            ledger.ping()
        except LedgerUnavailableError as exc:
            yield Finding("redis", Level.ERROR, exc.message)
        else:
            yield Finding("redis", Level.OK, f"answers at {settings.redis_address}")
            yield _writes(ledger)
            yield from _all_that_can_be_asked(settings, ledger)
    for name in settings.executors:
        yield from _executor(settings, name)
    yield _flower(flower)


def _all_that_can_be_asked(settings: Settings, ledger: Ledger) -> Iterator[Finding]:
    """A check that fails is a finding, and the other checks go on."""
    looks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("redis", lambda: _by_redis(ledger)),
        ("plans", lambda: _plans(settings, ledger)),
        ("faults in doubt", lambda: iter([in_doubt(ledger.try_read(ledger.in_doubt()))])),
        ("workers", lambda: _workers(settings, ledger)),
    ]
    looks += [(f"breaker of {name}", partial(_breaker, settings, name)) for name in settings.executors]
    for what, look in looks:
        try:
            yield from look()
        except ExecutorClientError as exc:
            yield Finding(what, Level.ERROR, exc.message, exc.advice)


def _by_redis(ledger: Ledger) -> Iterator[Finding]:
    try:
        yield from redis_server(ledger.server_info())
    except LedgerRefusedError:
        fix = "Permit INFO to have its persistence, its eviction policy and its memory looked at"
        yield Finding("redis server", Level.WARNING, "its user may not ask for its state", fix)
    yield from fsync(_fsync_policy(ledger))
    yield latency(statistics.median(_took_ms(ledger.ping) for _ in range(PINGS)))
    yield clock(time.time() - ledger.now_ms() / 1000)


def _fsync_policy(ledger: Ledger) -> str | None:
    try:
        [policy] = ledger.execute_all([["CONFIG", "GET", "appendfsync"]])
    except LedgerRefusedError:  # a hosted Redis keeps its configuration to itself
        return None
    pairs = policy.items() if isinstance(policy, dict) else zip(policy[::2], policy[1::2], strict=False)
    return dict(pairs).get("appendfsync")


def _plans(settings: Settings, ledger: Ledger) -> Iterator[Finding]:
    """Of the plans in flight, those that are due soonest."""
    yield overdue(ledger.late_s(), ledger.count_in_flight())
    halted = ledger.halted()
    if halted is not None:
        yield Finding("halt", Level.WARNING, f"no plans are taken: {halted}", "dispatcher resume")
    plans = ledger.try_read(ledger.in_flight(MOST_READ))
    [aside] = ledger.execute_all([["HGETALL", ledger.aside_key]])
    yield from unreadable(aside, plans)
    yield from applies(plans)
    yield retention(settings.result_expires_sec, plans, ledger.now_ms())


def _breaker(settings: Settings, name: str) -> Iterator[Finding]:
    if not settings.executors[name].circuit_breaker_enabled:
        yield Finding(f"breaker of {name}", Level.OK, "disabled by circuit_breaker_enabled")
        return
    with shared_breaker(settings, name) as shared, RedisErrors(settings.redis_address):
        yield breaker(shared.status())


def _took_ms(call: Callable[[], None]) -> float:
    begun = time.monotonic()
    call()
    return (time.monotonic() - begun) * 1000


def _writes(ledger: Ledger) -> Finding:
    """Whether Redis takes writes: it may be full, a replica, without its replicas or without a disk."""
    try:
        ledger.try_to_write()
    except LedgerUnavailableError as exc:
        return Finding("redis writes", Level.ERROR, exc.message)
    return Finding("redis writes", Level.OK, "are taken")


def _workers(settings: Settings, ledger: Ledger) -> Iterator[Finding]:
    began, lost_before, queued_before = time.monotonic(), _leases_lost(ledger), _queued(settings, ledger)
    try:
        with RedisErrors(settings.redis_address), closing(make_celery(settings)) as app:
            replies = _replies(app, WORKERS_WITHIN_SEC)
            silent = _silent(settings, ledger, replies)
            if silent:  # a worker under load answers later
                replies |= _replies(app, PATIENT_SEC)
                silent = _silent(settings, ledger, replies)
    except LedgerUnavailableError:
        raise
    except (KombuError, OSError, LookupError, ValueError) as exc:  # the last two: an invalid broker_url
        fix = "Does the broker run, and is broker_url right?"
        yield Finding("workers", Level.ERROR, f"cannot be asked: {type(exc).__name__}", fix)
        return
    yield from worker_fleet(replies, settings.queue, version("fault-dispatcher"), ledger.count_in_flight())
    yield from hanging(silent)
    yield from busy(replies, longest_step_s(settings.executors.values()))
    took_s, queued = time.monotonic() - began, _queued(settings, ledger)
    if replies and queued >= queued_before:
        plans = ledger.try_read(ledger.in_flight(MOST_READ))
        yield from unreceived(queued, plans, ledger.now_ms(), took_s)
    yield from leases(_leases_lost(ledger) - lost_before, took_s)


def _queued(settings: Settings, ledger: Ledger) -> int:
    """How many messages wait in the queue, if it is in the same Redis and may be asked."""
    try:
        return int(ledger.execute_all([["LLEN", settings.queue]])[0]) if settings.broker_shares_redis else 0
    except LedgerRefusedError:
        return 0


def _silent(settings: Settings, ledger: Ledger, replies: Mapping[str, Any]) -> dict[str, float]:
    """Workers that are connected to Redis but have not answered, with the seconds since they connected."""
    try:
        connected = connected_workers(ledger, settings)
    except LedgerRefusedError:  # not every Redis allows its clients to be listed
        return {}
    answered = {connection_name(settings, name) for name in replies}
    prefix = connection_name(settings, "")
    return {name.removeprefix(prefix): age for name, age in connected.items() if name not in answered}


def _leases_lost(ledger: Ledger) -> int:
    [lost] = ledger.execute_all([["HGET", ledger.counts_key, "leases_lost"]])
    return int(lost) if (lost or "").isdecimal() else 0


def _replies(app: Celery, within_s: float) -> dict[str, Any]:
    """What each worker says of itself, by its name. One of another version may not know the question."""
    replies = app.control.broadcast(DESCRIBE, reply=True, timeout=within_s)
    found = [each for reply in replies for each in reply.items()]
    return {name: answer if isinstance(answer, dict) else {} for name, answer in found}


def _executor(settings: Settings, name: str) -> Iterator[Finding]:
    """Whether it answers from here, by the driver's API, in a version that the driver knows."""
    config = settings.executors[name]
    what = f"executor {name}"
    with closing(open_driver(name, config, connections=1)) as driver:
        try:
            driver.health(EXECUTOR_WITHIN_SEC)
            message = driver.contract(EXECUTOR_WITHIN_SEC)
            can = driver.capabilities(EXECUTOR_WITHIN_SEC)
            driver.status(NO_SUCH_FAULT, EXECUTOR_WITHIN_SEC)
        except FaultLostError:
            pass
        except ExecutorClientError as exc:
            yield Finding(what, Level.ERROR, exc.message)
            return
        spoken = driver.speaks
        supports = driver.supports
        yield from _unknown_faults(settings, name, driver)
    yield Finding(what, Level.OK, f"answers at {config.url}, by {config.driver}")
    if spoken is not None:
        yield contract(name, message, spoken)
    yield capabilities(name, can, config.capabilities, supports)


def _unknown_faults(settings: Settings, name: str, driver: Driver) -> Iterator[Finding]:
    """Faults that the Executor lists and no plan accounts for."""
    try:
        with closing(connect(settings)) as ledger:
            unknown = unknown_faults(driver, ledger, EXECUTOR_WITHIN_SEC)
    except ExecutorClientError:
        return  # what is wrong with Redis is another finding
    if unknown:
        message = f"{len(unknown)} belong to no plan of this fleet: {', '.join(unknown[:MOST_NAMED])}"
        fix = "If they are not another fleet's, stop them at the Executor"
        yield Finding(f"faults of {name}", Level.WARNING, message, fix)


def _endpoint(url: str) -> Endpoint:
    """Raises `typer.BadParameter`."""
    try:
        return Endpoint(base_url=url)
    except (ExecutorClientError, ValueError) as exc:  # the text of a ValidationError has the URL in it
        raise typer.BadParameter(
            "must be a URL such as http://127.0.0.1:5555", param_hint="--flower"
        ) from exc


def _flower(endpoint: Endpoint | None) -> Finding:
    if endpoint is None:
        return Finding("flower", Level.OK, "not looked at: give --flower URL")
    with closing(HttpTransport(endpoint, 1)) as transport:
        try:
            answers = [transport.call("GET", path).status for path in ("/", "/api/workers", "/metrics")]
        except ExecutorClientError as exc:
            return Finding("flower", Level.WARNING, exc.message)
    if answers[:2] != [UNAUTHORIZED] * 2:
        fix = "Set FLOWER_BASIC_AUTH=user:password"
        return Finding("flower", Level.ERROR, "it asks for no password", fix)
    if answers[2] != UNAUTHORIZED:
        fix = "Let only Prometheus reach it, by the network or a proxy"
        return Finding("flower", Level.WARNING, "asks for a password, but /metrics is open", fix)
    return Finding("flower", Level.OK, "asks for a password")
