"""Submit many plans from a generator, and take each result as it comes."""

from collections.abc import Iterator
from typing import assert_type

from dispatcher import Dispatcher, ExecutorClientError, FaultPlan, PlanBatch, PlanHandle, RawObservation


def plans(shares: list[int]) -> Iterator[FaultPlan]:
    for share in shares:
        fields = {"service": "A", "api": "/x", "fault_type": "abort", "abort_http_status": 503}
        yield FaultPlan.model_validate(fields | {"percentage": share, "duration_seconds": 30})


def run(dispatcher: Dispatcher) -> list[float]:
    batch = dispatcher.submit_many(plans([10, 50, 90]), timeout_sec=20)
    assert_type(batch, PlanBatch)
    assert_type(len(batch), int)
    for handle in batch.as_completed(timeout=90):
        assert_type(handle, PlanHandle)
        assert_type(handle.refusal, ExecutorClientError | None)
    outcomes = batch.results()
    assert_type(outcomes, list[RawObservation | ExecutorClientError])
    seen = [each for each in outcomes if isinstance(each, RawObservation)]
    return [each.error_rate for each in seen if each.error_rate is not None]
