"""React to each kind of error."""

from typing import assert_type

from dispatcher import (
    CircuitOpenError,
    ExecutorClientError,
    ExecutorRejectedError,
    FaultInDoubtError,
    InvalidPlanError,
    PlanConflictError,
    PlanHandle,
    RawObservation,
)


def run(handle: PlanHandle) -> RawObservation | None:
    try:
        return handle.result()
    except InvalidPlanError as error:
        assert_type(error.problems, list[tuple[str, str]])
    except PlanConflictError as error:
        assert_type(error.holder, str)
    except CircuitOpenError as error:
        assert_type(error.retry_after_s, float | None)
    except ExecutorRejectedError as error:
        assert_type(error.status, int)
        assert_type(error.retry_after_s, float | None)
    except FaultInDoubtError as error:
        assert_type(error.apply_id, str)
    except ExecutorClientError as error:
        assert_type(error.retry_safe, bool)
        assert_type(error.advice, str)
        assert_type(error.exit_code, int)
        assert_type(error.message, str)
    return None
