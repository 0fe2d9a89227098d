"""The Celery task, where Celery itself fails it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Reject, Retry

from dispatcher import ExecutorServerError
from workers.tasks import PARKED, _retry

CAUSE = ExecutorServerError("down", 503, "")


class FakeTask:
    """A task whose retry message can be sent, or not."""

    def __init__(self, *, sent: bool) -> None:
        self.request = SimpleNamespace(id="p1")
        self._sent = sent

    def retry(self, **options: Any) -> Exception:
        """What Celery's own does."""
        if not self._sent:
            raise Reject(ConnectionError("no broker"), requeue=False)
        retry: Exception = Retry(exc=options["exc"], when=options["countdown"])
        return retry


def test_a_retry_that_cannot_be_sent_leaves_the_parked_plan_to_the_waker() -> None:
    assert _retry(FakeTask(sent=False), 0.5, CAUSE) == PARKED


def test_a_retry_that_is_sent_is_celerys_own() -> None:
    with pytest.raises(Retry) as caught:
        _retry(FakeTask(sent=True), 0.5, CAUSE)
    assert (caught.value.exc, caught.value.when) == (CAUSE, 0.5)
