"""`dispatcher breaker`: the circuit breakers that the fleet shares."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.lines import echo
from dispatcher.cli.options import Executor, check_executor
from dispatcher.ledger.connection import RedisErrors, impatient_client
from dispatcher.settings.settings import load_settings
from workers.breaker.rules import BreakerRules, BreakerState
from workers.breaker.shared import SharedBreaker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatcher.settings.settings import Settings
    from workers.breaker.shared import BreakerStatus

__all__ = ["breaker", "shared_breaker"]

breaker = typer.Typer(
    help="Show the circuit breaker of each Executor, or move one by hand.", no_args_is_help=True
)

NO_REASON = "no reason was given"

Reason = Annotated[str, typer.Option(help="Why. It is in the error of each plan that the breaker stops.")]
States = Annotated[
    bool,
    json_option(
        "for each: executor, state, by_hand, reason, since_ms, until_ms, failures, opens, half_opens, closes"
    ),
]
Json = Annotated[bool, json_option("with executor, state, changed (false if it was so already)")]


@breaker.command()
def show(*, as_json: States = False) -> None:
    """Show the state of each."""
    for name in load_settings().executors:
        with _breaker(name) as each:
            status = each.status()
        if as_json:
            print_json(asdict(status))
        else:
            echo(_line(status))


@breaker.command("open")
def open_(*, executor: Executor = "default", reason: Reason = NO_REASON, as_json: Json = False) -> None:
    """Let no call through until close. Faults can still be stopped."""
    with _breaker(executor) as each:
        changed = each.open(reason)
    _tell(executor, BreakerState.OPEN, changed=changed, as_json=as_json)


@breaker.command()
def close(
    *, executor: Executor = "default", reason: Reason = "closed by hand", as_json: Json = False
) -> None:
    """Let calls through again, and count from zero."""
    with _breaker(executor) as each:
        changed = each.close(reason)
    _tell(executor, BreakerState.CLOSED, changed=changed, as_json=as_json)


@breaker.command()
def disable(*, executor: Executor = "default", reason: Reason = NO_REASON, as_json: Json = False) -> None:
    """Let all calls through, even if they fail, until close or open."""
    with _breaker(executor) as each:
        changed = each.disable(reason)
    _tell(executor, BreakerState.DISABLED, changed=changed, as_json=as_json)


@breaker.command()
def reset(*, executor: Executor = "default", as_json: Json = False) -> None:
    """Let calls through, and forget what was counted."""
    with _breaker(executor) as each:
        each.reset()
    _tell(executor, BreakerState.CLOSED, ", and nothing is counted", changed=True, as_json=as_json)


@contextmanager
def _breaker(executor: str) -> Iterator[SharedBreaker]:
    """Raises `InvalidSettingsError` for an unknown name, `LedgerUnavailableError` if Redis is away."""
    settings = load_settings()
    check_executor(settings, executor)
    with shared_breaker(settings, executor) as each:
        yield each


@contextmanager
def shared_breaker(settings: Settings, executor: str) -> Iterator[SharedBreaker]:
    """The fleet's breaker of a configured Executor. Raises `LedgerUnavailableError`."""
    rules = BreakerRules.of(settings.executors[executor], lease_s=0)
    client = impatient_client(settings)
    try:
        with RedisErrors(settings.redis_address):
            client.ping()
            yield SharedBreaker(client, settings.key_prefix, executor, rules)
    finally:
        client.close()


def _tell(executor: str, state: BreakerState, more: str = "", *, changed: bool, as_json: bool) -> None:
    if as_json:
        print_json({"executor": executor, "state": state, "changed": changed})
    else:
        echo(f"{executor} is {state}{more}" if changed else f"{executor} was {state} already")


def _line(status: BreakerStatus) -> str:
    parts = [f"{status.executor}: {status.state}{' by hand' if status.by_hand else ''}"]
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
