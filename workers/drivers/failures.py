"""The specification's table of errors (section 5.2), as data.

Each row says what happened to a call, which error that is, and what to do about it. The error's class says
whether a retry is worth it (`retry_safe`).
"""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.errors import (
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
)

__all__ = ["CONNECTION_ROWS", "STATUS_ROWS", "Row", "status_row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of failure."""

    failure: str
    error: type[ExecutorClientError]
    advice: str


CONNECTION_ROWS = {
    "timeout": Row("no answer in time", ExecutorTimeoutError, "is it overloaded?"),
    "refused": Row("connection refused", ExecutorConnectionError, "is it running, is base_url right?"),
    "dns": Row("host name not found", ExecutorConnectionError, "is the host in its base_url right?"),
    "tls": Row("TLS failed", ExecutorConnectionError, "does its certificate fit its base_url and ca_file?"),
    "broken": Row("connection broken", ExecutorConnectionError, "did it, or a proxy, restart?"),
}
"""What can happen to a call that gets no answer."""

STATUS_ROWS = {
    206: Row("a part of an answer", ExecutorServerError, "does a proxy cut the Executor's answers?"),
    400: Row("bad request", ExecutorRejectedError, "correct the plan"),
    401: Row("unauthorized", ExecutorRejectedError, "check the Executor's token"),
    403: Row("forbidden", ExecutorRejectedError, "check what the Executor's token may do"),
    404: Row("not found", ExecutorRejectedError, "check the Executor's version, and the service's name"),
    408: Row("request timeout", ExecutorServerError, "the request came too slowly"),
    409: Row("conflict", ExecutorRejectedError, "another fault is in the way: wait until it has ended"),
    422: Row("unprocessable", ExecutorRejectedError, "the plan id was used for another fault"),
    429: Row("too many requests", ExecutorServerError, "the Executor asks for fewer calls"),
    500: Row("internal server error", ExecutorServerError, "see the Executor's log"),
    502: Row("bad gateway", ExecutorServerError, "a proxy does not reach the Executor"),
    503: Row("service unavailable", ExecutorServerError, "the Executor is not ready"),
    504: Row("gateway timeout", ExecutorServerError, "a proxy got no answer from the Executor"),
}
"""What an answer's HTTP status means."""

_MOVED = Row("moved", ExecutorRejectedError, "redirects are not followed: put the final address in base_url")
_OTHER_REJECTION = Row("rejected", ExecutorRejectedError, "check base_url and the Executor's version")
_OTHER_SERVER_ERROR = Row("server error", ExecutorServerError, "see the Executor's log")
_FIRST_REJECTION, _FIRST_SERVER_ERROR = 400, 500


def status_row(status: int) -> Row:
    """The row of an answer without success: any status outside of 200 to 299, and 206."""
    if status < _FIRST_REJECTION:
        return STATUS_ROWS.get(status, _MOVED)
    other = _OTHER_SERVER_ERROR if status >= _FIRST_SERVER_ERROR else _OTHER_REJECTION
    return STATUS_ROWS.get(status, other)
