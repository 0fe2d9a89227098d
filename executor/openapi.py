"""The contract as an OpenAPI document, made from the application: `python -m executor.openapi`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

import yaml

from executor.app import OPEN_PATH, create_app

if TYPE_CHECKING:
    from executor.envoy import Envoy
    from executor.injector import Injector

__all__ = ["document"]

HEADER = """\
# What an Executor answers. The faults API is the one to implement; the policy API is that of an older one.
# Made by `make docs`.
"""
DESCRIPTION = """\
`Idempotency-Key`, `DELETE /v1/faults/{apply_id}`, the health's `contract` and the policies are extensions.
An Executor may do without them.
Contract 1.1 adds, also as extensions: `Not-After`, `GET /v1/faults`, and in the metrics the counts,
percentiles and times that say so. Contract 1.2 adds `POST /v1/faults/stop-all`, and `doubt`.
A client takes a field that is absent or null for unknown.
All calls may carry a W3C `traceparent`. Unknown fields in answers are passed over by clients.
"""


def document() -> str:
    """The YAML text."""
    nothing = cast("Any", None)  # the description does not depend on what is behind the endpoints
    app = create_app(cast("Injector", nothing), cast("Envoy", nothing), (), None)
    found: dict[str, Any] = app.openapi()
    found["info"]["description"] = DESCRIPTION
    found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operations in found["paths"].items():
        for operation in operations.values():
            _without_frameworks_own_refusals(operation)
            operation["security"] = [{}] if path == OPEN_PATH else [{}, {"token": []}]
    for name in ("HTTPValidationError", "ValidationError"):
        found["components"]["schemas"].pop(name, None)
    return HEADER + yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=110)


def _without_frameworks_own_refusals(operation: dict[str, Any]) -> None:
    """FastAPI would answer 422 where this API answers 400."""
    if "HTTPValidationError" in str(operation["responses"].get("422", "")):
        del operation["responses"]["422"]


if __name__ == "__main__":
    sys.stdout.write(document())
