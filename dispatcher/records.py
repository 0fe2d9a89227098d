"""Finds plans again: one, a batch, or those of the history."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Unpack

from dispatcher.errors import PlanUnknownError, RecordUnreadableError
from dispatcher.export.rows import AT_ONCE, ended, row_of
from dispatcher.handles import PlanHandle
from dispatcher.history import all_pages, page_of
from dispatcher.ledger.index import members
from dispatcher.ledger.waits import pages
from dispatcher.limits import PLAN_ID
from dispatcher.plan_batch import PlanBatch
from dispatcher.printable import printable
from dispatcher.submissions import ID_RULE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dispatcher.access import Access
    from dispatcher.export.rows import Row
    from dispatcher.history import Filters, HistoryPage
    from dispatcher.ledger.record import PlanRecord
    from dispatcher.models import PlanStatus

__all__ = ["Records"]

LONGEST_SHOWN = 128

logger = logging.getLogger(__name__)


class Records:
    """The part of `Dispatcher` that reads plans by their ids, batches and filters."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._door = access.door
        self._ledger = access.ledger
        self._warned_of: set[str] = set()

    def handle(self, plan_id: str) -> PlanHandle:
        """A handle on a plan that was submitted here or anywhere else. Nothing is asked yet.

        Raises `PlanUnknownError` if no plan can have this id.
        """
        if not (isinstance(plan_id, str) and PLAN_ID.fullmatch(plan_id)):
            raise PlanUnknownError(f"plan {_shown(plan_id)} is unknown: its id {ID_RULE}")
        return PlanHandle(plan_id, self._access)

    def batch(self, batch_id: str) -> PlanBatch:
        """A batch that was submitted here or anywhere else, in the order of submission.

        Plans that were refused are not in it. It is known until the last of its plans' records has expired.
        Raises `PlanUnknownError`, `LedgerUnavailableError`.
        """
        possible = isinstance(batch_id, str) and PLAN_ID.fullmatch(batch_id)
        ids = self._ledger.carry_out(members(self._ledger, batch_id)) if possible else []
        if not ids:
            unknown = f"batch {_shown(batch_id)} is unknown"
            raise PlanUnknownError(f"{unknown}: its id is wrong, or its plans' records have expired")
        return PlanBatch(batch_id, [PlanHandle(plan_id, self._access) for plan_id in ids], self._access)

    def history(self, *, limit: int | None = None, **filters: Unpack[Filters]) -> Iterator[PlanStatus]:
        """The plans whose records exist, ended ones and those in flight, the newest first; `limit` at most.

        `filters`: see `Filters`. Records are kept for `result_expires_sec` after the end of their plans. The
        iterator reads page by page; it leaves `unreadable` plans out, with a warning.

        Raises `InvalidSettingsError` (a filter), `LedgerUnavailableError`.
        """
        return all_pages(self.history_page, limit, filters)

    def history_rows(self, *, limit: int | None = None, **filters: Unpack[Filters]) -> Iterator[Row]:
        """The plans of `history` and what was observed, as a table: docs/columns.md has its columns.

        What was not seen is None. Raises `InvalidSettingsError`, `LedgerUnavailableError`.
        """
        return self._rows_of(self.history(limit=limit, **filters))

    def history_page(
        self, *, cursor: str | None = None, limit: int = 100, **filters: Unpack[Filters]
    ) -> HistoryPage:
        """The next `limit` plans of `history`, behind the `cursor` that the page before has returned.

        Raises `InvalidSettingsError` (a filter, the cursor or the limit), `LedgerUnavailableError`.
        """
        reading = page_of(self._ledger, self._access.results, filters, cursor, limit)
        page = self._ledger.carry_out(reading)
        for error in page.unreadable:
            self._warn_of(error)
        return page

    def _rows_of(self, plans: Iterator[PlanStatus]) -> Iterator[Row]:
        while page := list(itertools.islice(plans, AT_ONCE)):
            yield from map(row_of, self._ledger.carry_out(ended(self._access.results, page)))

    def _readable(self, plan_ids: Sequence[str]) -> Iterator[PlanRecord]:
        """The plans that this version can read. Warns of each other one, once."""
        for record in self._records(plan_ids):
            if not isinstance(record, RecordUnreadableError):
                yield record
            else:
                self._warn_of(record)

    def _warn_of(self, error: RecordUnreadableError) -> None:
        """Once for each plan."""
        if error.plan_id not in self._warned_of:
            self._warned_of.add(error.plan_id)
            logger.warning("%s", error)

    def _records(self, plan_ids: Sequence[str]) -> Iterator[PlanRecord | RecordUnreadableError]:
        for page in pages(plan_ids):
            yield from (record for record in self._ledger.try_read(page) if record is not None)


def _shown(given: object) -> str:
    """What was given as an id, for a message."""
    text = printable(str(given))
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
