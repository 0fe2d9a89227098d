"""The protocol of the requests that a fault hits, and the statuses of gRPC."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

__all__ = ["GRPC_STATUSES", "GrpcStatus", "Protocol"]


class Protocol(StrEnum):
    """In which protocol the requests come that a fault hits."""

    HTTP = "http"
    """Any request. Aborts have an HTTP status."""

    GRPC = "grpc"
    """gRPC calls only. Aborts have a gRPC status."""


GRPC_STATUSES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""Their names, each at its number (gRPC, Status codes and their use in gRPC)."""


def _status(value: object) -> object:
    """The number of a gRPC status, which may be given by its name."""
    if isinstance(value, str) and value in GRPC_STATUSES:
        return GRPC_STATUSES.index(value)
    if isinstance(value, bool | str | bytes):
        raise ValueError("must be a gRPC status: 1 to 16, or a name such as UNAVAILABLE")
    return value


GrpcStatus = Annotated[
    int, BeforeValidator(_status, json_schema_input_type=int | str), Field(ge=1, le=len(GRPC_STATUSES) - 1)
]
"""A gRPC status other than `OK`, as a number or by its name."""
