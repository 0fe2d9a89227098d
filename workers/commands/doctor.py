"""`dispatcher doctor`"""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

import typer
from kombu.exceptions import KombuError

from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.terminal import echo
from dispatcher.errors import ExecutorClientError, FaultLostError, LedgerUnavailableError
from dispatcher.ledger.connection import RedisErrors
from dispatcher.ledger.ledger import connect
from dispatcher.settings.executors import Endpoint
from dispatcher.settings.settings import load_settings
from dispatcher.tasks.app import make_celery
from workers.commands.breaker import shared_breaker
from workers.commands.diagnostics import (
    Finding,
    Level,
    clock,
    contract,
    in_doubt,
    latency,
    overdue,
    redis_server,
    worker_fleet,
)
from workers.drivers.registry import open_driver
from workers.drivers.transport import HttpTransport
from workers.orphans import unknown_faults
from workers.tasks.control import DESCRIBE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dispatcher.ledger.ledger import Ledger
    from dispatcher.settings.settings import Settings
    from workers.drivers.base import Driver

__all__ = ["doctor"]

PINGS = 11
WORKERS_WITHIN_SEC = 1.5
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
    settings = load_settings()
    levels = set()
    for finding in _findings(settings, flower):
        levels.add(finding.level)
        if as_json:
            print_json(asdict(finding))
        else:
            echo(str(finding))
    raise typer.Exit(int(Level.ERROR in levels))


def _findings(settings: Settings, flower: str | None) -> Iterator[Finding]:
    with closing(connect(settings)) as ledger:
        try:
            ledger.ping()
        except LedgerUnavailableError as exc:
            yield Finding("redis", Level.ERROR, exc.message)
        else:
            yield Finding("redis", Level.OK, f"answers at {settings.redis_address}")
            yield _writes(ledger)
            try:
                yield from _by_redis(settings, ledger)
            except LedgerUnavailableError as exc:
                yield Finding("redis", Level.ERROR, exc.message)
    for name in settings.executors:
        yield from _executor(settings, name)
    yield _flower(flower)


def _by_redis(settings: Settings, ledger: Ledger) -> Iterator[Finding]:
    yield from redis_server(ledger.server_info())
    yield latency(statistics.median(_took_ms(ledger.ping) for _ in range(PINGS)))
    yield clock(time.time() - ledger.now_ms() / 1000)
    yield overdue(ledger.late_s(), ledger.count_in_flight())
    halted = ledger.halted()
    if halted is not None:
        yield Finding("halt", Level.WARNING, f"no plans are taken: {halted}", "dispatcher resume")
    yield in_doubt(ledger.try_read(ledger.in_doubt()))
    yield from _workers(settings)
    for name in settings.executors:
        with shared_breaker(settings, name) as breaker:
            status = breaker.status()
        level = Level.OK if status.state == "closed" else Level.WARNING
        fix = "" if level is Level.OK else "dispatcher breaker close, if the Executor is well"
        yield Finding(f"breaker of {name}", level, f"{status.state} {status.reason}".strip(), fix)


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


def _workers(settings: Settings) -> list[Finding]:
    try:
        with RedisErrors(settings.redis_address):
            replies = _replies(settings)
    except (LedgerUnavailableError, KombuError, OSError) as exc:
        return [Finding("workers", Level.ERROR, f"cannot be asked: {exc}")]
    return worker_fleet(replies, settings.queue, version("fault-dispatcher"))


def _replies(settings: Settings) -> dict[str, Any]:
    """What each worker says of itself. One of another version may not know the question."""
    with closing(make_celery(settings)) as app:
        replies = app.control.broadcast(DESCRIBE, reply=True, timeout=WORKERS_WITHIN_SEC)
        return {name: answer for reply in replies for name, answer in reply.items()}


def _executor(settings: Settings, name: str) -> Iterator[Finding]:
    """Whether it answers from here, by the driver's API, in a version that the driver knows."""
    config = settings.executors[name]
    what = f"executor {name}"
    with closing(open_driver(name, config, connections=1)) as driver:
        try:
            driver.health(EXECUTOR_WITHIN_SEC)
            message = driver.contract(EXECUTOR_WITHIN_SEC)
            driver.status(NO_SUCH_FAULT, EXECUTOR_WITHIN_SEC)
        except FaultLostError:
            pass
        except ExecutorClientError as exc:
            yield Finding(what, Level.ERROR, exc.message)
            return
        spoken = driver.speaks
        yield from _unknown_faults(settings, name, driver)
    yield Finding(what, Level.OK, f"answers at {config.url}, by {config.driver}")
    if spoken is not None:
        yield contract(name, message, spoken)


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


def _flower(url: str | None) -> Finding:
    if url is None:
        return Finding("flower", Level.OK, "not looked at: give --flower URL")
    with closing(HttpTransport(Endpoint(base_url=url), 1)) as transport:
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
