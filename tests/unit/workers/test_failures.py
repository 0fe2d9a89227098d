"""The specification's table of errors, row by row."""

from __future__ import annotations

import pytest

from dispatcher import ExecutorRejectedError, ExecutorServerError
from workers.drivers.failures import CONNECTION_ROWS, STATUS_ROWS, status_row

SPECIFIED = [
    ("timeout", True),
    ("refused", True),
    ("dns", True),
    (400, False),
    (401, False),
    (404, False),
    (500, True),
    (503, True),
]


@pytest.mark.parametrize(("failure", "retryable"), SPECIFIED)
def test_what_the_specification_retries_is_retried(failure: str | int, *, retryable: bool) -> None:
    row = CONNECTION_ROWS[failure] if isinstance(failure, str) else STATUS_ROWS[failure]
    assert row.error.retry_safe is retryable


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (206, ExecutorServerError),
        (301, ExecutorRejectedError),
        (402, ExecutorRejectedError),
        (418, ExecutorRejectedError),
        (429, ExecutorServerError),
        (502, ExecutorServerError),
        (504, ExecutorServerError),
        (599, ExecutorServerError),
    ],
)
def test_every_other_status_has_a_row_too(status: int, error: type) -> None:
    assert status_row(status).error is error
