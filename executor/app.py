"""The endpoints of the faults API."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from executor.contract import FaultApplied, FaultApply, FaultMetrics, FaultStatus, Health, Refusal
from executor.envoy import EnvoyError
from executor.faults import ConflictError, KeyReusedError
from executor.traces import trace_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container, Mapping, Sequence

    from executor.envoy import Envoy
    from executor.faults import Fault
    from executor.injector import Injector

__all__ = ["create_app"]

OPEN_PATH = "/v1/health"
"""Needs no token."""

ERRORS = {400: "invalid_input", 401: "unauthorized", 404: "not_found", 409: "conflict", 422: "key_reused"}


def create_app(injector: Injector, envoy: Envoy, services: Container[str], token: str | None) -> FastAPI:
    """The application. `services` are those that faults may hit; `token` is asked for where there is one."""
    app = FastAPI(title="Reference Executor", openapi_url=None)
    endpoints = _Endpoints(injector, envoy, services)
    app.post("/v1/faults/apply")(endpoints.apply)
    app.get("/v1/faults/{apply_id}/status")(endpoints.status)
    app.get("/v1/faults/{apply_id}/metrics")(endpoints.metrics)
    app.delete("/v1/faults/{apply_id}")(endpoints.stop)
    app.get(OPEN_PATH)(endpoints.health)
    _refuse_in_the_contracts_words(app)
    if token:
        _ask_for(token, app)
    return app


class _Endpoints:
    def __init__(self, injector: Injector, envoy: Envoy, services: Container[str]) -> None:
        self._injector = injector
        self._envoy = envoy
        self._services = services

    async def apply(
        self, request: FaultApply, idempotency_key: Annotated[str | None, Header(max_length=256)] = None
    ) -> FaultApplied:
        if request.service not in self._services:
            raise HTTPException(404, f"there is no service {request.service!r}")
        try:
            fault = await self._injector.apply(request, idempotency_key)
        except ConflictError as exc:
            raise HTTPException(409, str(exc)) from exc
        except KeyReusedError as exc:
            raise HTTPException(422, str(exc)) from exc
        except EnvoyError as exc:
            return FaultApplied(apply_id="", status="failed", message=str(exc))
        return FaultApplied(apply_id=fault.apply_id, status="applied")

    async def status(self, apply_id: str) -> FaultStatus:
        return _status(self._known(apply_id))

    async def metrics(self, apply_id: str) -> FaultMetrics:
        fault = self._known(apply_id)
        if not fault.settled(_now()):
            raise HTTPException(409, f"fault {apply_id} is still running")
        await self._injector.observe(fault)
        return _metrics(fault)

    async def stop(self, apply_id: str) -> FaultStatus:
        fault = self._known(apply_id)
        try:
            await self._injector.end(fault)
        except EnvoyError as exc:
            raise HTTPException(503, f"fault {apply_id} was not taken away: {exc}") from exc
        return _status(fault)

    async def health(self, response: Response) -> Health:
        if await self._envoy.ready():
            return Health(status="healthy")
        response.status_code = 503
        return Health(status="unhealthy")

    def _known(self, apply_id: str) -> Fault:
        fault = self._injector.find(apply_id)
        if fault is None:
            raise HTTPException(404, f"there is no fault {apply_id!r}")
        return fault


def _status(fault: Fault) -> FaultStatus:
    state: Literal["running", "completed", "failed"] = "running"
    if fault.error:
        state = "failed"
    elif fault.settled(_now()):
        state = "completed"
    return FaultStatus(
        apply_id=fault.apply_id,
        status=state,
        start_time=fault.start_time,
        end_time=fault.end_time,
        error_msg=fault.error,
    )


def _metrics(fault: Fault) -> FaultMetrics:
    tally = fault.tally
    return FaultMetrics(
        apply_id=fault.apply_id,
        status_code=tally.most_frequent_status,
        latency_ms=tally.mean_latency_ms,
        error_rate=tally.error_rate,
        success_count=tally.requests - tally.errors,
        error_count=tally.errors,
        trace_data=trace_json(tally.spans),
        logs=tally.log_lines(),
    )


def _refuse_in_the_contracts_words(app: FastAPI) -> None:
    """Every refusal is `{"error": ..., "message": ...}`, and an invalid body is a 400."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, exc: RequestValidationError) -> JSONResponse:
        problems = [f"{_field(error['loc'])}: {_words(error)}" for error in exc.errors()]
        return _refusal(400, "; ".join(problems))

    @app.exception_handler(StarletteHTTPException)
    async def refused(_: Request, exc: StarletteHTTPException) -> JSONResponse:
        return _refusal(exc.status_code, str(exc.detail))


def _ask_for(token: str, app: FastAPI) -> None:
    expected = f"Bearer {token}".encode()

    @app.middleware("http")
    async def authorize(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("authorization", "").encode()
        if request.url.path != OPEN_PATH and not hmac.compare_digest(given, expected):
            return _refusal(401, "this Executor asks for its bearer token")
        return await go_on(request)


def _refusal(status: int, message: str) -> JSONResponse:
    refusal = Refusal(error=ERRORS.get(status, "error"), message=message)
    return JSONResponse(refusal.model_dump(), status_code=status)


def _field(location: Sequence[str | int]) -> str:
    """Where the problem is: `fault_config.delay_ms`."""
    return ".".join(str(part) for part in location[1:]) or "body"


def _words(error: Mapping[str, Any]) -> str:
    return str(error["msg"]).removeprefix("Value error, ")


def _now() -> datetime:
    return datetime.now(UTC)
