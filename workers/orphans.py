"""Orphans: faults that an Executor still has, although their plans have ended without a known fault.

The list of an Executor is compared with the ledger. Faults of plans that this ledger does not know are left
alone, because they may belong to another fleet; `dispatcher doctor` names them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from dispatcher.errors import ExecutorClientError, LedgerUnavailableError
from dispatcher.ledger.record import PlanRecord
from dispatcher.limits import PLAN_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatcher.ledger.ledger import Ledger
    from workers.drivers.base import Driver, ListedFault

__all__ = ["remove_orphans", "unknown_faults"]

GRACE_MS = 5_000
"""How long after its plan's end a fault is not an orphan: the list may have been made before."""

logger = logging.getLogger(__name__)


def remove_orphans(driver: Driver, ledger: Ledger, within_s: float) -> list[str]:
    """Stop the orphans; their ids. Empty if the Executor does not list its faults.

    Raises `LedgerUnavailableError`.
    """
    try:
        faults = list(_with_records(driver, ledger, within_s))
    except LedgerUnavailableError:
        raise
    except ExecutorClientError as exc:
        logger.warning("the faults of an Executor could not be compared with the plans: %s", exc)
        return []
    now_ms = ledger.now_ms()
    removed = []
    for fault, record in faults:
        if record is None or not _is_over(record, now_ms):
            continue
        try:
            driver.stop(fault.apply_id)
        except ExecutorClientError as exc:
            logger.warning("fault %s of plan %s, which has ended, was not stopped: %s", *_ids(fault), exc)
        else:
            logger.warning("fault %s of plan %s, which has ended, was still there: stopped", *_ids(fault))
            removed.append(fault.apply_id)
    return removed


def unknown_faults(driver: Driver, ledger: Ledger, within_s: float) -> list[str]:
    """Ids of the Executor's faults that belong to no plan of this ledger. Raises `ExecutorClientError`."""
    return [fault.apply_id for fault, record in _with_records(driver, ledger, within_s) if record is None]


def _with_records(
    driver: Driver, ledger: Ledger, within_s: float
) -> Iterator[tuple[ListedFault, PlanRecord | None]]:
    """Each fault with its plan, except plans that cannot be read."""
    listed = driver.faults(within_s) or []
    ids = [fault.key if fault.key and PLAN_ID.fullmatch(fault.key) else None for fault in listed]
    known = iter(ledger.try_read([plan_id for plan_id in ids if plan_id is not None]))
    for fault, plan_id in zip(listed, ids, strict=True):
        record = None if plan_id is None else next(known)
        if record is None or isinstance(record, PlanRecord):
            yield fault, record


def _is_over(record: PlanRecord, now_ms: int) -> bool:
    """Whether the plan has ended and its fault was known to be over."""
    ended_ms = record.ended_ms or now_ms
    return record.state.final and record.doubt is None and ended_ms + GRACE_MS <= now_ms


def _ids(fault: ListedFault) -> tuple[str, str | None]:
    return fault.apply_id, fault.key
