"""The index of all plans by the time of their submission, and how it is read: page by page, the newest first.

Each read is an exchange, written once for threads and for asyncio: see `dispatcher.ledger.exchanges`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from dispatcher.errors import RecordUnreadableError
from dispatcher.ledger.exchanges import asking, exchanging
from dispatcher.ledger.ledger import record_of
from dispatcher.ledger.scripts import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dispatcher.ledger.exchanges import Exchange
    from dispatcher.ledger.ledger import Ledger
    from dispatcher.ledger.record import PlanRecord
    from dispatcher.models import PlanState

__all__ = ["Found", "Place", "Wanted", "found", "members"]

SCANNED = 500
"""How many plans one round trip looks at."""

FIELDS = Script.of("dispatcher.ledger", "fields")
"""Reads the fields that decide whether a plan is wanted."""


class Place(NamedTuple):
    """A plan's position in the index, which is in the order of submission."""

    submitted_us: int
    """Microseconds since 1970, on the Redis server's clock."""

    plan_id: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which plans are wanted. None: any."""

    states: frozenset[PlanState] | None = None
    executor: str | None = None
    service: str | None = None
    api: str | None = None
    tag: str | None = None
    batch: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    """The first microsecond that is too late."""

    ended_with: Callable[[str, str], bool] | None = None
    """Whether a plan that ended without an observation is wanted, by its id and its stored result."""

    @property
    def any_fields(self) -> bool:
        """Whether no field of a plan's record decides."""
        return self.ended_with is None and not (self.states or self.executor or self.service or self.tag)

    def has(self, state: str | None, target: str | None, tags: str | None) -> bool:
        """Whether a plan with these fields is wanted, as far as they say. A plan without fields is not."""
        if state is None or target is None:
            return False
        executor, _, rest = target.partition(":")
        service, _, api = rest.partition(":")
        pairs = ((self.executor, executor), (self.service, service), (self.api, api))
        return (
            (self.states is None or state in self.states)
            and all(wanted is None or wanted == own for wanted, own in pairs)
            and (self.tag is None or self.tag in (tags or "").split())
        )

    def reaches(self, place: Place, after: Place | None) -> bool:
        """Whether the place is within the time that is wanted, and behind `after`."""
        return (
            (self.since_us is None or place.submitted_us >= self.since_us)
            and (self.until_us is None or place.submitted_us < self.until_us)
            and (after is None or place < after)
        )


@dataclass(frozen=True, slots=True)
class Found:
    """Some of the wanted plans, the newest first."""

    records: list[PlanRecord]
    unreadable: list[RecordUnreadableError]
    """Wanted plans that this version cannot read."""

    after: Place | None
    """The last plan of this page: the next page begins behind it. None on the last page."""


def members(ledger: Ledger, batch: str) -> Exchange[list[str]]:
    """Ids of the batch's plans, in the order of submission. Empty: it is unknown."""
    [ids] = yield from asking([["LRANGE", ledger.batch_key(batch), 0, -1]])
    return list(ids)


def found(
    ledger: Ledger, wanted: Wanted, result_key: Callable[[str], str], after: Place | None, limit: int
) -> Exchange[Found]:
    """The next `limit` plans that are wanted, of those behind the place `after`.

    Looks at `SCANNED` plans in a round trip, until it has found so many or has looked at all.
    """
    page = Found([], [], after)
    batch = None if wanted.batch is None else (yield from _of_batch(ledger, wanted.batch))
    while True:
        count = min(SCANNED, limit - len(page.records)) if wanted.any_fields else SCANNED
        places = yield from _places(ledger, wanted, page.after, count, batch)
        ids = yield from _wanted_of(ledger, wanted, result_key, [place.plan_id for place in places])
        wanted_places = [place for place in places if place.plan_id in ids]
        room = limit - len(page.records)
        yield from _read(ledger, page, wanted_places[:room])
        if len(wanted_places) > room:
            return Found(page.records, page.unreadable, wanted_places[room - 1])
        if len(places) < count:
            return Found(page.records, page.unreadable, None)
        page = Found(page.records, page.unreadable, places[-1])
        if len(page.records) >= limit:
            return page


def _places(
    ledger: Ledger, wanted: Wanted, after: Place | None, count: int, batch: list[Place] | None
) -> Exchange[list[Place]]:
    """The next `count` plans of the index, or of the batch."""
    if batch is not None:
        return [place for place in batch if wanted.reaches(place, after)][:count]
    newest = (
        after.submitted_us
        if after is not None
        else "+inf"
        if wanted.until_us is None
        else f"({wanted.until_us}"
    )
    oldest = "-inf" if wanted.since_us is None else wanted.since_us
    places: list[Place] = []
    skipped = 0
    while len(places) < count:  # `after` itself comes first, and plans of its microsecond may be before it
        limit = ["LIMIT", skipped, count + 1]
        command = ["ZREVRANGEBYSCORE", ledger.history_key, newest, oldest, "WITHSCORES", *limit]
        [reply] = yield from asking([command])
        read = [Place(int(float(us)), plan_id) for plan_id, us in _pairs(reply)]
        places += [place for place in read if wanted.reaches(place, after)]
        skipped += len(read)
        if len(read) <= count:
            break
    return places[:count]


def _of_batch(ledger: Ledger, batch: str) -> Exchange[list[Place]]:
    """Places of the batch's plans in the index, the newest first."""
    ids = yield from members(ledger, batch)
    scores: list[Any] = []
    for start in range(0, len(ids), SCANNED):
        page = ids[start : start + SCANNED]
        scores += yield from asking([["ZSCORE", ledger.history_key, each] for each in page])
    known = [Place(int(float(us)), each) for each, us in zip(ids, scores, strict=True) if us is not None]
    return sorted(known, reverse=True)


def _wanted_of(
    ledger: Ledger, wanted: Wanted, result_key: Callable[[str], str], ids: Sequence[str]
) -> Exchange[set[str]]:
    """Those of the plans that are wanted, and those whose records cannot be read."""
    if wanted.any_fields or not ids:
        return set(ids)
    [fields] = yield from asking([["EVAL", FIELDS.text, 0, ledger.prefix, *ids]])
    chosen = [
        each for each, own in zip(ids, fields, strict=True) if not isinstance(own, list) or wanted.has(*own)
    ]
    if wanted.ended_with is None or not chosen:
        return set(chosen)
    [results] = yield from asking([["MGET", *map(result_key, chosen)]])
    pairs = zip(chosen, results, strict=True)
    return {each for each, stored in pairs if stored is not None and wanted.ended_with(each, stored)}


def _read(ledger: Ledger, page: Found, places: Sequence[Place]) -> Exchange[None]:
    """Add the records of these plans. Those that have expired meanwhile are left out."""
    if not places:
        return
    replies = yield from exchanging([["HGETALL", ledger.plan_key(place.plan_id)] for place in places])
    for place, reply in zip(places, replies, strict=True):
        record = record_of(place.plan_id, reply)
        if isinstance(record, RecordUnreadableError):
            page.unreadable.append(record)
        elif record is not None:
            page.records.append(record)


def _pairs(reply: Any) -> list[tuple[str, Any]]:
    """The members of a sorted set and their scores, which redis-py may have paired already."""
    if reply and isinstance(reply[0], str):
        return list(zip(reply[::2], reply[1::2], strict=True))
    return [(name, score) for name, score in reply]
