"""How to wait for plans to end, written once for threads and for asyncio.

Each wait is a generator: it yields a request to Redis (`Send` or `Block`) and is sent the reply. `Waiter` and
`AsyncWaiter` carry waits out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import redis

from dispatcher.errors import ExecutorClientError, RecordUnreadableError
from dispatcher.ledger.connection import replies_of
from dispatcher.ledger.exchanges import Send
from dispatcher.models import PlanState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dispatcher.ledger.ledger import Ledger

__all__ = [
    "PAGE",
    "Block",
    "End",
    "Request",
    "Wait",
    "completions",
    "ended_among",
    "ends_of",
    "first_of",
    "pages",
    "result_of",
    "results_or_states",
    "values_of",
]

T = TypeVar("T")

PAGE = 500
"""How many plans one command is about."""


@dataclass(frozen=True, slots=True)
class Block:
    """A command that Redis answers once there is something, or with None after some seconds."""

    words: Callable[[float], Sequence[Any]]
    """The command, given those seconds."""


End = str | PlanState | ExecutorClientError | None
"""How a plan ended: its stored result, or why that cannot be read. A final state: the result has expired, or
was forgotten. None: the plan is unknown."""

Request = Send | Block
Wait = Generator[Request, Any, T]
"""A wait that ends with a `T`."""


def result_of(
    ledger: Ledger, plan_id: str, result_key: str, timeout_sec: float | None
) -> Wait[tuple[PlanState | None, str | None]]:
    """Wait until the plan ends, or `timeout_sec` have passed; its state then, and its stored result.

    No state if the plan is unknown, whose result may be there even so.
    """
    give_up_at = time.monotonic() + (math.inf if timeout_sec is None else timeout_sec)
    while True:
        state = _state(plan_id, (yield from _ask("HGET", ledger.plan_key(plan_id), "state")))
        if state is None or state.final:
            return state, (yield from _ask("GET", result_key))
        if time.monotonic() >= give_up_at:
            return state, None
        yield _first(ledger.ended_key(plan_id))


def completions(
    ledger: Ledger, batch: str, cursor: str, pending: Sequence[str], timeout_sec: float
) -> Wait[tuple[str, list[str]]]:
    """Wait until more of a batch has ended: the ids after `place` in its stream, and the new place.

    Plans that are unknown by now have ended too, and so have those whose entry is lost. No ids once
    `timeout_sec` have passed.
    """
    give_up_at = time.monotonic() + timeout_sec
    key = ledger.completions_key(batch)

    def words(seconds: float) -> list[Any]:
        return ["XREAD", "COUNT", PAGE, "BLOCK", round(seconds * 1000), "STREAMS", key, cursor]

    while True:
        entries = _entries((yield Block(words)))
        ids = [fields["id"] for _, fields in entries if "id" in fields]
        cursor = entries[-1][0] if entries else cursor
        if ids:
            return cursor, ids
        lost = yield from _missed(ledger, pending)
        if lost or time.monotonic() >= give_up_at:
            return cursor, lost


def first_of(key: str, timeout_sec: float) -> Wait[str | None]:
    """The first element of the list under `key`, which stays there. None once `timeout_sec` have passed."""
    give_up_at = time.monotonic() + timeout_sec
    while True:
        found: str | None = yield from _ask("LINDEX", key, 0)
        if found is not None or time.monotonic() >= give_up_at:
            return found
        yield _first(key)


def values_of(keys: Sequence[str]) -> Wait[list[str | None]]:
    """What is stored under each of `keys`."""
    values: list[str | None] = []
    for page in pages(keys):
        values += yield from _ask("MGET", *page)
    return values


def ended_among(ledger: Ledger, keys: Mapping[str, str]) -> Wait[dict[str, End]]:
    """How those of the plans have ended that have, or are unknown.

    `keys` has the key of each plan's result.
    """
    stored = yield from values_of(list(keys.values()))
    left = {plan_id for plan_id, result in zip(keys, stored, strict=True) if result is None}
    asked = list(pages([plan_id for plan_id in keys if plan_id not in left]))
    for page in pages([plan_id for plan_id in keys if plan_id in left]):
        both = [["EXISTS", *map(key, page)] for key in (ledger.plan_key, ledger.ended_key)]
        known, without_result = replies_of((yield Send(both)))
        if known < len(page) or without_result:
            asked.append(page)
    ended: dict[str, End] = {}
    for page in asked:
        found = yield from results_or_states(ledger, {plan_id: keys[plan_id] for plan_id in page})
        ended |= {plan_id: end for plan_id, end in found.items() if not _in_flight(end)}
    return ended


def ends_of(ledger: Ledger, keys: Mapping[str, str]) -> Wait[dict[str, End]]:
    """How the plans have ended, all of which have. `keys` has the key of each plan's result."""
    ended: dict[str, End] = {}
    for page in pages(list(keys)):
        ended |= yield from results_or_states(ledger, {plan_id: keys[plan_id] for plan_id in page})
    return ended


def results_or_states(ledger: Ledger, keys: Mapping[str, str]) -> Wait[dict[str, End]]:
    """Each plan's stored result, or its state if there is none.

    What is stored of a plan in flight does not count: a retry's cause, or another program's text.
    """
    reads = [["HGET", ledger.plan_key(plan_id), "state"] for plan_id in keys]
    *states, stored = yield Send([*reads, ["MGET", *keys.values()]])
    [results] = replies_of([stored])
    return {
        plan_id: known if result is None or _in_flight(known) else result
        for plan_id, known, result in zip(keys, map(_state_or_error, keys, states), results, strict=True)
    }


def pages(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """The items, as many at a time as one command should be about."""
    for start in range(0, len(items), PAGE):
        yield items[start : start + PAGE]


def _in_flight(end: End) -> bool:
    return isinstance(end, PlanState) and not end.final


def _first(key: str) -> Block:
    """Wait for an element of a list. It goes round to the list's other end, for others who wait."""
    return Block(lambda seconds: ["BLMOVE", key, key, "LEFT", "LEFT", seconds])


def _state(plan_id: str, stored: str | None) -> PlanState | None:
    try:
        return None if stored is None else PlanState(stored)
    except ValueError as exc:
        message = f"plan {plan_id} cannot be read: this version knows no state {stored!r}"
        raise RecordUnreadableError(message, plan_id) from exc


def _state_or_error(
    plan_id: str, stored: str | redis.ResponseError | None
) -> PlanState | RecordUnreadableError | None:
    if isinstance(stored, redis.ResponseError):
        return RecordUnreadableError(f"plan {plan_id} cannot be read: {stored}", plan_id)
    try:
        return _state(plan_id, stored)
    except RecordUnreadableError as exc:
        return exc


def _ask(*words: Any) -> Wait[Any]:
    """The reply to one command. Raises `redis.ResponseError`."""
    [reply] = replies_of((yield Send([words])))
    return reply


def _missed(ledger: Ledger, plan_ids: Sequence[str]) -> Wait[list[str]]:
    """Those of the plans that have ended, or are unknown. Asks about each only if there may be some."""
    missed: list[str] = []
    for page in pages(plan_ids):
        both = [["ZMSCORE", ledger.due_key, *page], ["EXISTS", *map(ledger.plan_key, page)]]
        due, known = replies_of((yield Send(both)))
        gone = [plan_id for plan_id, due_ms in zip(page, due, strict=True) if due_ms is None]
        gone = list(page) if known < len(page) else gone
        states = (yield Send([["HGET", ledger.plan_key(each), "state"] for each in gone])) if gone else ()
        found = map(_state_or_error, gone, states)
        missed += [plan_id for plan_id, state in zip(gone, found, strict=True) if not _in_flight(state)]
    return missed


def _entries(answer: Any) -> list[tuple[str, dict[str, str]]]:
    """The entries in an answer to XREAD of one stream."""
    for _, entries in answer or []:
        return list(entries)
    return []
