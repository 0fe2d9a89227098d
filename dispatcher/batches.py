"""A batch while it is submitted, page by page: what its submitter learns if that breaks off."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

from dispatcher.errors import LedgerUnavailableError, PartlySubmittedError
from dispatcher.handles import PlanBatch, PlanHandle
from dispatcher.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from dispatcher.errors import ExecutorClientError
    from dispatcher.handles import Access
    from dispatcher.ledger.submission import Submission

__all__ = ["GrowingBatch"]

logger = logging.getLogger(__name__)


class GrowingBatch:
    """Collects the handles of a batch. Use it as a context manager around its submission.

    If an error ends that after plans were submitted, raises `PartlySubmittedError` from it. Ctrl-C and the
    cancellation of a coroutine pass, and the log names the batch.
    """

    def __init__(self, batch_id: str, access: Access) -> None:
        self.id = batch_id
        self._access = access
        self._handles: list[PlanHandle] = []
        self._asked: Sequence[Submission] = ()

    def pages(self, pages: Iterable[Sequence[Submission]]) -> Iterator[Sequence[Submission]]:
        """The pages, each of which is answered before the next one is taken."""
        for page in pages:
            self._asked = page
            yield page

    def answered(self, refusals: Sequence[ExecutorClientError | None]) -> None:
        """How the last page was answered: why each plan was refused, None for a plan that was taken.

        Raises the first `LedgerUnavailableError` among them: Redis has refused that plan's command.
        """
        page, self._asked = self._asked, ()
        trouble = None
        for submission, refusal in zip(page, refusals, strict=True):
            if isinstance(refusal, LedgerUnavailableError):
                trouble = trouble or refusal
            else:
                self._handles.append(PlanHandle(submission.plan_id, self._access, refusal))
        if trouble is not None:
            raise trouble

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
