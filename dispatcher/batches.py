"""A batch while it is submitted, page by page: what its submitter learns if that breaks off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable
from enum import Enum
from typing import TYPE_CHECKING, Self

from dispatcher.errors import LedgerUnavailableError, PartlySubmittedError
from dispatcher.handles import PlanHandle
from dispatcher.plan_batch import PlanBatch
from dispatcher.printable import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from types import TracebackType

    from dispatcher.access import Access
    from dispatcher.errors import ExecutorClientError
    from dispatcher.ledger.submission import Submission
    from dispatcher.models import FaultPlan
    from dispatcher.sessions import Session
    from dispatcher.submissions import Door, Options

__all__ = ["GrowingBatch", "Uncertain", "pages_of", "submit_all"]

ENCODED_IN_A_ROW = 50
"""Plans of `submit_many_async` that are encoded before other tasks have their turn."""

MOST_ON_THEIR_WAY = 500
"""Plans of `submit_many_async` that may wait to be handed over."""

logger = logging.getLogger(__name__)


class Uncertain(Enum):
    """The answer of a submission that had none: the plan may be in the ledger, or not."""

    UNCERTAIN = "uncertain"


class GrowingBatch:
    """Collects the handles of a batch. Use it as a context manager around its submission.

    If an error ends that after plans were submitted, raises `PartlySubmittedError` from it. Ctrl-C and the
    cancellation of a coroutine pass, and the log names the batch.
    """

    def __init__(self, batch_id: str, access: Access) -> None:
        self.id = batch_id
        self._access = access
        self._handles: list[PlanHandle] = []
        self._asked: list[Submission] = []
        """Those without an answer, in their order."""

    def ask(self, page: Sequence[Submission]) -> None:
        """These plans are about to be submitted."""
        self._asked += page

    def answered(
        self, answers: Sequence[ExecutorClientError | Uncertain | None]
    ) -> LedgerUnavailableError | None:
        """How the first plans without an answer were answered: why each was refused, None if it was taken.

        Returns the first `LedgerUnavailableError` among them: Redis has refused that plan's command.
        """
        trouble, uncertain = None, []
        for submission, answer in zip(self._asked, answers, strict=False):
            if isinstance(answer, Uncertain):
                uncertain.append(submission)
            elif isinstance(answer, LedgerUnavailableError):
                trouble = trouble or answer
            else:
                handle = PlanHandle(submission.plan_id, self._access, answer, submission.order.plan)
                self._handles.append(handle)
        self._asked[: len(answers)] = uncertain
        return trouble

    def batch(self) -> PlanBatch:
        """What has been submitted so far, plans that were refused included."""
        return PlanBatch(self.id, self._handles, self._access)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        taken = [handle for handle in self._handles if handle.refusal is None]
        if not taken:
            return
        uncertain = (
            [each.plan_id for each in self._asked] if isinstance(error, LedgerUnavailableError) else []
        )
        count = f"{len(taken)} plans of batch {self.id} were submitted"
        if not isinstance(error, Exception):
            logger.warning("%s before %s ended that; they go on", count, type(error).__name__)
            return
        if uncertain:
            count = f"{count}, and perhaps {len(uncertain)} more,"
        raise PartlySubmittedError(
            f"{count} before {type(error).__name__}: {printable(str(error))}",
            self.id,
            [handle.id for handle in taken],
            uncertain,
            submitted=PlanBatch(self.id, taken, self._access),
        ) from error


async def pages_of(
    door: Door,
    plans: Iterable[FaultPlan] | AsyncIterable[FaultPlan],
    batch_id: str,
    options: Options,
    plan_ids: Iterable[str] | None,
) -> AsyncIterator[Sequence[Submission]]:
    """`Door.many`, for asyncio: other tasks have their turn after each page.

    The plans of an asynchronous iterable go one by one, as they come, unless their ids are given.
    """
    if isinstance(plans, AsyncIterable):
        if plan_ids is None:
            number = 0
            async for plan in plans:
                for page in door.many([plan], batch_id, options, start=number):
                    yield page
                number += 1
            return
        plans = [plan async for plan in plans]
    for page in door.many(plans, batch_id, options, plan_ids, size=ENCODED_IN_A_ROW):
        yield page
        await asyncio.sleep(0)


async def submit_all(
    session: Session, pages: AsyncIterator[Sequence[Submission]], growing: GrowingBatch
) -> LedgerUnavailableError | None:
    """Submit the pages, together with what other tasks submit. See `GrowingBatch.answered`.

    Raises what the pages raise, and `LedgerUnavailableError` if Redis did not answer. All submissions that
    were begun have their answers then, unless the task was cancelled.
    """
    answers: list[asyncio.Future[ExecutorClientError | None]] = []
    try:
        async for page in pages:
            growing.ask(page)
            answers += map(session.submit, page)
            if len(answers) > MOST_ON_THEIR_WAY:
                await answers[-MOST_ON_THEIR_WAY]
        await asyncio.gather(*answers)
    except Exception:
        await asyncio.gather(*answers, return_exceptions=True)
        raise
    finally:
        trouble = growing.answered([_answer(each) for each in answers])
    return trouble


def _answer(future: asyncio.Future[ExecutorClientError | None]) -> ExecutorClientError | Uncertain | None:
    if not future.done() or future.cancelled() or future.exception() is not None:
        return Uncertain.UNCERTAIN
    return future.result()
