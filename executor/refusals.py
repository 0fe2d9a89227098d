"""How the Executor says no: `{"error": ..., "message": ...}`, and 400 for an invalid body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from executor.contract import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI, Request

__all__ = ["refusal", "refusals", "refuse_in_the_contracts_words"]

NOT_ALLOWED = 405

ERRORS = {
    400: ("invalid_input", "The request breaks the contract"),
    401: ("unauthorized", "The bearer token is missing or wrong"),
    404: ("not_found", "There is no such service, fault or path"),
    405: ("method_not_allowed", "The path does not know this method"),
    408: ("too_slow", "The body did not arrive in time"),
    409: ("conflict", "Another fault is in the way, or requests of the fault are still under way: ask again"),
    412: ("precondition_failed", "The apply came after its `Not-After`, and began no fault"),
    413: ("too_large", "The body is too large"),
    422: ("key_reused", "The idempotency key was used for another request"),
    429: ("too_many_faults", "The Executor has as many faults as it may have"),
    503: ("unavailable", "The data plane does not answer"),
}


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer."""
    word, _ = ERRORS.get(status, ("error", ""))
    body = Refusal(error=word, message=message).model_dump()
    return JSONResponse(body, status_code=status, headers=headers)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The same for the API's description."""
    return {status: {"model": Refusal, "description": ERRORS[status][1]} for status in statuses}


def refuse_in_the_contracts_words(app: FastAPI) -> None:
    """Have the application answer what it refuses itself in the same way."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, exc: RequestValidationError) -> JSONResponse:
        problems = [f"{_field(error['loc'])}: {_words(error)}" for error in exc.errors()]
        return refusal(400, "; ".join(problems))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, exc: HTTPException) -> JSONResponse:
        headers = {"Allow": _allowed(request)} if exc.status_code == NOT_ALLOWED else exc.headers
        return refusal(exc.status_code, str(exc.detail), headers)


def _allowed(request: Request) -> str:
    """All methods of a path (RFC 9110, 10.2.1), not only those of the route that has answered."""
    routes = [route for route in request.app.routes if isinstance(route, APIRoute)]
    here = next(route.path for route in routes if route.path_regex.fullmatch(request.url.path))
    methods = {method for route in routes if route.path == here for method in route.methods or ()}
    return ", ".join(sorted(methods))


def _field(location: Sequence[str | int]) -> str:
    """The place of the problem: `fault_config.delay_ms`, or `at character 7` of what is not JSON."""
    within = location[1:]
    if len(within) == 1 and isinstance(within[0], int):
        return f"at character {within[0]}"
    return ".".join(map(str, within)) or "body"


def _words(error: Mapping[str, Any]) -> str:
    return str(error["msg"]).removeprefix("Value error, ")
