"""The history of plans, ended ones and those in flight: what `Dispatcher.history` filters by and returns."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypedDict

from dispatcher import errors
from dispatcher.arguments import count_in
from dispatcher.errors import ExecutorClientError, InvalidSettingsError, RecordUnreadableError
from dispatcher.ledger.index import Place, Wanted, found
from dispatcher.ledger.record import TAG
from dispatcher.models import API_PATH, SERVICE_NAME, PlanState, PlanStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dispatcher.ledger.exchanges import Exchange
    from dispatcher.ledger.ledger import Ledger
    from dispatcher.tasks.stored_results import StoredResults

__all__ = ["Filters", "HistoryPage", "all_pages", "page_of", "wanted_by"]

CURSOR = re.compile(r"(\d{1,17})-(.{1,128})")
UNSUCCESSFUL = frozenset({PlanState.FAILED, PlanState.CANCELLED, PlanState.EXPIRED})
MOST_ON_A_PAGE = 10_000
PAGE = 500
"""How many plans `Dispatcher.history` reads at a time."""


class Filters(TypedDict, total=False):
    """What `Dispatcher.history` filters by. A plan must meet all of them."""

    state: PlanState | str | Iterable[PlanState | str] | None
    """One state or several."""

    target: str | None
    """A service, or a service and an API's path with a space between: `PaymentService /api/v1/pay`."""

    executor: str | None
    """Name of the Executor, as in the configuration."""

    tag: str | None
    batch: str | None
    """Id of a batch."""

    since: datetime | None
    """The earliest moment of submission."""

    until: datetime | None
    """The moment before which the plan was submitted."""

    error: type[ExecutorClientError] | str | None
    """An error that ended the plan, by its class or the name of it. Includes the classes below it."""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Some plans of the history, the newest first."""

    plans: list[PlanStatus]
    cursor: str | None
    """What the next page is asked for with. None: this is the last page."""

    unreadable: list[RecordUnreadableError]
    """Plans that this version cannot read."""


def page_of(
    ledger: Ledger, results: StoredResults, filters: Filters, cursor: str | None, limit: int
) -> Exchange[HistoryPage]:
    """The page behind the cursor. Raises `InvalidSettingsError` for a wrong filter, cursor or limit."""
    limit = count_in("limit", limit, most=MOST_ON_A_PAGE)
    wanted, after = wanted_by(filters, results), None if cursor is None else _place(cursor)
    page = yield from found(ledger, wanted, results.key, after, limit)
    return HistoryPage([record.status() for record in page.records], _cursor(page.after), page.unreadable)


def all_pages(read: Callable[..., HistoryPage], limit: int | None, filters: Filters) -> Iterator[PlanStatus]:
    """The plans of all pages, or the first `limit`. The first page is read at once, and raises its errors."""
    if limit is not None:
        limit = count_in("limit", limit)
    size = PAGE if limit is None else min(limit, PAGE)
    return itertools.islice(_plans(read, read(limit=size, **filters), filters), limit)


def _plans(read: Callable[..., HistoryPage], page: HistoryPage, filters: Filters) -> Iterator[PlanStatus]:
    while True:
        yield from page.plans
        if page.cursor is None:
            return
        page = read(cursor=page.cursor, limit=PAGE, **filters)


def wanted_by(filters: Filters, results: StoredResults) -> Wanted:
    """The filters, checked. Raises `InvalidSettingsError`."""
    unknown = set(filters) - set(Filters.__annotations__)
    if unknown:
        raise _wrong(min(unknown), f"is not a filter: use {', '.join(Filters.__annotations__)}")
    service, api = _target(filters.get("target"))
    kind = _error(filters.get("error"))
    states = _states(filters.get("state"))
    if kind is not None:
        states = UNSUCCESSFUL & (states or UNSUCCESSFUL)
    return Wanted(
        states=states,
        executor=_text("executor", filters.get("executor")),
        service=service,
        api=api,
        tag=_tag(filters.get("tag")),
        batch=_text("batch", filters.get("batch")),
        since_us=_microseconds("since", filters.get("since")),
        until_us=_microseconds("until", filters.get("until")),
        ended_with=None if kind is None else _ended_with(kind, results),
    )


def _states(given: Any) -> frozenset[PlanState] | None:
    if given is None:
        return None
    listed = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    unknown = [each for each in listed if each not in list(PlanState)]
    if unknown or not listed:
        raise _wrong("state", f"must be {', '.join(PlanState)}{_nearest(unknown, PlanState)}")
    return frozenset(map(PlanState, listed))


def _target(given: Any) -> tuple[str | None, str | None]:
    if given is None:
        return None, None
    service, _, api = given.strip().partition(" ") if isinstance(given, str) else ("", "", "")
    api = api.strip()
    if not SERVICE_NAME.fullmatch(service) or (api and not API_PATH.fullmatch(api)):
        raise _wrong("target", "must be a service, or a service and a path: PaymentService /api/v1/pay")
    return service, api or None


def _error(given: Any) -> type[ExecutorClientError] | None:
    if given is None or (isinstance(given, type) and issubclass(given, ExecutorClientError)):
        return given
    if given not in errors.__all__:
        message = "must be the name of an error, such as ExecutorRejectedError"
        raise _wrong("error", f"{message}{_nearest([given], errors.__all__)}")
    kind: type[ExecutorClientError] = getattr(errors, given)
    return kind


def _ended_with(kind: type[ExecutorClientError], results: StoredResults) -> Callable[[str, str], bool]:
    def ended_with(plan_id: str, stored: str) -> bool:
        try:
            results.decode(plan_id, stored)
        except ExecutorClientError as error:
            return isinstance(error, kind)
        return False

    return ended_with


def _tag(given: Any) -> str | None:
    if given is not None and not (isinstance(given, str) and TAG.fullmatch(given)):
        raise _wrong("tag", "must be letters, digits and . _ - : =, at most 64 of them")
    return given


def _text(name: str, given: Any) -> str | None:
    if given is not None and not (isinstance(given, str) and given and given.isprintable()):
        raise _wrong(name, "must be a text of printable characters that is not empty")
    return given


def _microseconds(name: str, given: Any) -> int | None:
    if given is None:
        return None
    if not isinstance(given, datetime) or given.tzinfo is None:
        raise _wrong(name, "must be a datetime with a time zone")
    return round((given - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)


def _place(cursor: str) -> Place:
    known = CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
    if known is None:
        raise _wrong("cursor", "must be one that an earlier page has returned")
    return Place(int(known[1]), known[2])


def _cursor(place: Place | None) -> str | None:
    return None if place is None else f"{place.submitted_us}-{place.plan_id}"


def _nearest(given: list[Any], names: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(given[0]), list(names), 1) if given else []
    return f"; did you mean {near[0]}?" if near else ""


def _wrong(name: str, problem: str) -> InvalidSettingsError:
    return InvalidSettingsError(f"invalid filter: {name} {problem}", [[name, problem]])
