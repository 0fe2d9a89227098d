"""`dispatcher breaker`: the circuit breakers that the fleet shares."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.errors import InvalidSettingsError
from dispatcher.ledger import impatient_client, redis_errors
from dispatcher.settings import load_settings
from workers.breaker import SharedBreaker
from workers.breaker_rules import BreakerRules

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatcher.settings import Settings
    from workers.breaker import BreakerStatus

__all__ = ["breaker", "shared_breaker"]

breaker = typer.Typer(
    help="Show the circuit breaker of each Executor, or move one by hand.", no_args_is_help=True
)

Executor = Annotated[str, typer.Option(help="Which of the configured Executors.")]
Reason = Annotated[str, typer.Option(help="Told to whoever meets it.")]


@breaker.command()
def show(*, as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False) -> None:
    """Show the state of each."""
    for name in load_settings().executors:
        with _breaker(name) as each:
            status = each.status()
        typer.echo(json.dumps(asdict(status)) if as_json else _line(status))


@breaker.command("open")
def open_(*, executor: Executor = "default", reason: Reason = "opened by hand") -> None:
    """Let no call through until close. Faults can still be stopped."""
    with _breaker(executor) as each:
        _tell(executor, "open", changed=each.open(reason))


@breaker.command()
def close(*, executor: Executor = "default", reason: Reason = "closed by hand") -> None:
    """Let calls through again, and count from zero."""
    with _breaker(executor) as each:
        _tell(executor, "closed", changed=each.close(reason))


@breaker.command()
def disable(*, executor: Executor = "default", reason: Reason = "disabled by hand") -> None:
    """Let all calls through, whatever comes of them, until close or open."""
    with _breaker(executor) as each:
        _tell(executor, "disabled", changed=each.disable(reason))


@breaker.command()
def reset(*, executor: Executor = "default") -> None:
    """Let calls through, and forget what was counted."""
    with _breaker(executor) as each:
        each.reset()
    _tell(executor, "closed, and nothing is counted", changed=True)


@contextmanager
def _breaker(executor: str) -> Iterator[SharedBreaker]:
    """Raises `InvalidSettingsError` for an unknown name, `LedgerUnavailableError` where Redis is away."""
    settings = load_settings()
    if executor not in settings.executors:
        known = ", ".join(sorted(settings.executors))
        problem = f"must be one of the configured executors: {known}"
        raise InvalidSettingsError(f"invalid arguments: executor {problem}", [["executor", problem]])
    with shared_breaker(settings, executor) as each:
        yield each


@contextmanager
def shared_breaker(settings: Settings, executor: str) -> Iterator[SharedBreaker]:
    """The fleet's breaker of a configured Executor. Raises `LedgerUnavailableError`."""
    rules = BreakerRules.of(settings.executors[executor], lease_s=0)
    client = impatient_client(settings)
    try:
        with redis_errors(settings.redis_address):
            client.ping()
            yield SharedBreaker(client, settings.key_prefix, executor, rules)
    finally:
        client.close()


def _tell(executor: str, state: str, *, changed: bool) -> None:
    typer.echo(f"{executor} is {state}" if changed else f"{executor} was {state} already")


def _line(status: BreakerStatus) -> str:
    parts = [f"{status.executor}: {status.state}"]
    if status.since_ms is not None:
        parts.append(f"since {_moment(status.since_ms)}")
    if status.until_ms is not None:
        parts.append(f"until {_moment(status.until_ms)}")
    if status.reason:
        parts.append(f"({status.reason})")
    if status.failures:
        parts.append(f"{status.failures} failed in a row")
    return " ".join([*parts, f"- opened {status.opens} times"])


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone().isoformat(sep=" ", timespec="seconds")
