"""The endpoints of the faults API."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Header, HTTPException, Path, Request, Response

from executor.contract import (
    CONTRACT,
    FaultApplied,
    FaultApply,
    FaultList,
    FaultMetrics,
    FaultStatus,
    Health,
    ListedFault,
    NotAfter,
)
from executor.control_plane import EnvoyError
from executor.faults import ConflictError, KeyReusedError, TooLateError, TooManyFaultsError
from executor.policies import Policies
from executor.policy_endpoints import add_policies
from executor.refusals import refusal, refusals, refuse_in_the_contracts_words
from executor.strict_json import StrictRoute
from executor.traces import trace_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container

    from fastapi.routing import APIRoute

    from executor.envoy import Envoy
    from executor.faults import Fault
    from executor.injector import Injector

__all__ = ["create_app"]

OPEN_PATH = "/v1/health"
"""Needs no token."""

NOT_AFTER = (
    "An apply that arrives after this moment, by the Executor's clock, begins no fault. "
    "UTC with milliseconds: 2030-01-31T12:00:00.000Z. Since contract 1.1."
)

ApplyId = Annotated[str, Path(max_length=1024)]


def create_app(injector: Injector, envoy: Envoy, services: Container[str], token: str | None) -> FastAPI:
    """The application. `services` are those that faults may hit; `token` is asked for if there is one."""
    app = FastAPI(
        title="Fault injection Executor",
        version=f"{CONTRACT}.0",
        openapi_url=None,
        generate_unique_id_function=_operation,
    )
    app.router.route_class = StrictRoute
    _add_faults(app, _Faults(injector, envoy, services))
    add_policies(app, Policies(injector), services)
    unwell: dict[int | str, dict[str, Any]] = {503: {"model": Health, "description": "They cannot"}}
    app.get(OPEN_PATH, responses=unwell, summary="Whether faults can be injected")(_health(envoy))
    refuse_in_the_contracts_words(app)
    if token:
        _ask_for(token, app)
    return app


def _operation(route: APIRoute) -> str:
    """What a generated client calls it."""
    return "_".join([*map(str, route.tags), route.name])


def _add_faults(app: FastAPI, faults: _Faults) -> None:
    one = "/v1/faults/{apply_id}"
    add = partial(app.add_api_route, tags=["faults"])
    links = {
        name: {"operationId": f"faults_{name}", "parameters": {"apply_id": "$response.body#/apply_id"}}
        for name in ("status", "metrics", "stop")
    }
    applied: dict[int | str, dict[str, Any]] = {200: {"links": links}}
    refused = refusals(400, 401, 404, 408, 409, 412, 413, 422, 429)
    add("/v1/faults", faults.list, methods=["GET"], responses=refusals(401, 503))
    add("/v1/faults/stop-all", faults.stop_all, methods=["POST"], responses=refusals(401, 503))
    add("/v1/faults/apply", faults.apply, methods=["POST"], responses=applied | refused)
    add(f"{one}/status", faults.status, methods=["GET"], responses=refusals(400, 401, 404))
    add(f"{one}/metrics", faults.metrics, methods=["GET"], responses=refusals(400, 401, 404, 409))
    add(one, faults.stop, methods=["DELETE"], responses=refusals(400, 401, 404, 503))


def _health(envoy: Envoy) -> Callable[[Response], Awaitable[Health]]:
    async def health(response: Response) -> Health:
        """Needs no token."""
        if await envoy.ready():
            return Health(status="healthy")
        response.status_code = 503
        return Health(status="unhealthy")

    return health


class _Faults:
    def __init__(self, injector: Injector, envoy: Envoy, services: Container[str]) -> None:
        self._injector = injector
        self._envoy = envoy
        self._services = services

    async def list(self) -> FaultList:
        """The faults that are in force, or hold requests still. A fault that is absent is over."""
        if not await self._envoy.ready():
            raise HTTPException(503, "Envoy is not ready, so its faults are unknown")
        return FaultList(faults=[_listed(fault) for fault in self._injector.current()])

    async def apply(
        self,
        request: FaultApply,
        idempotency_key: Annotated[str | None, Header(max_length=256)] = None,
        not_after: Annotated[NotAfter, Header(description=NOT_AFTER)] = None,
    ) -> FaultApplied:
        """Inject a fault. The same request with the same key is one fault."""
        if request.service not in self._services:
            raise HTTPException(404, f"there is no service {request.service!r}")
        try:
            fault = await self._injector.apply(request, idempotency_key, not_after)
        except TooLateError as exc:
            raise HTTPException(412, str(exc)) from exc
        except ConflictError as exc:
            raise HTTPException(409, str(exc)) from exc
        except KeyReusedError as exc:
            raise HTTPException(422, str(exc)) from exc
        except TooManyFaultsError as exc:
            raise HTTPException(429, str(exc)) from exc
        except EnvoyError as exc:
            return FaultApplied(apply_id="", status="failed", message=str(exc))
        return FaultApplied(apply_id=fault.apply_id, status="applied")

    async def status(self, apply_id: ApplyId) -> FaultStatus:
        """Whether the fault is still there."""
        return _status(self._known(apply_id))

    async def metrics(self, apply_id: ApplyId) -> FaultMetrics:
        """What was observed of a fault that is over.

        409 while requests that arrived before its end are under way: ask again. An Executor waits for them
        for a limited time only.
        """
        fault = self._known(apply_id)
        if not await self._injector.settle(fault):
            what = "is still running" if fault.active else "is over, but some of its requests are under way"
            raise HTTPException(409, f"fault {apply_id} {what}")
        return _metrics(fault)

    async def stop(self, apply_id: ApplyId) -> FaultStatus:
        """End the fault now. Stopping one that is over changes nothing.

        The answer's status is `completed`, or `running` if the fault holds requests still.
        """
        fault = self._known(apply_id)
        try:
            await self._injector.end(fault)
        except EnvoyError as exc:
            raise HTTPException(503, f"fault {apply_id} was not taken away: {exc}") from exc
        return _status(fault)

    async def stop_all(self) -> FaultList:
        """End all faults now. The answer lists those that were there; each is removed from the data plane."""
        try:
            return FaultList(faults=[_listed(fault) for fault in await self._injector.end_all()])
        except EnvoyError as exc:
            raise HTTPException(503, f"not all faults were taken away: {exc}") from exc

    def _known(self, apply_id: str) -> Fault:
        fault = self._injector.find(apply_id)
        if fault is None:
            raise HTTPException(404, f"there is no fault {apply_id!r}")
        return fault


def _listed(fault: Fault) -> ListedFault:
    service, api = fault.target
    return ListedFault(
        apply_id=fault.apply_id, key=fault.key, service=service, api=api, start_time=fault.start_time
    )


def _status(fault: Fault) -> FaultStatus:
    state: Literal["running", "completed", "failed"] = "running"
    if fault.error:
        state = "failed"
    elif fault.over(_now()):
        state = "completed"
    return FaultStatus(
        apply_id=fault.apply_id,
        status=state,
        start_time=fault.start_time,
        end_time=fault.end_time,
        error_msg=fault.error,
        doubt=fault.doubt,
    )


def _metrics(fault: Fault) -> FaultMetrics:
    tally = fault.tally
    return FaultMetrics(
        apply_id=fault.apply_id,
        status_code=tally.most_frequent_status,
        latency_ms=tally.latencies.mean_ms,
        error_rate=tally.error_rate,
        success_count=tally.requests - tally.errors,
        error_count=tally.errors,
        requests=tally.requests,
        faulted=tally.faulted,
        unanswered=tally.unanswered,
        unfinished=tally.unfinished,
        latency_sd_ms=tally.latencies.sd_ms,
        latency_p50_ms=tally.latencies.percentile_ms(50),
        latency_p95_ms=tally.latencies.percentile_ms(95),
        latency_p99_ms=tally.latencies.percentile_ms(99),
        start_time=fault.start_time,
        end_time=fault.end_time,
        doubt=fault.doubt,
        trace_data=trace_json(tally.spans),
        logs=tally.log_lines(),
    )


def _ask_for(token: str, app: FastAPI) -> None:
    expected = f"Bearer {token}".encode()

    @app.middleware("http")
    async def authorize(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.headers.get("authorization", "").encode()
        if request.url.path != OPEN_PATH and not hmac.compare_digest(given, expected):
            return refusal(401, "this Executor asks for its bearer token")
        return await go_on(request)


def _now() -> datetime:
    return datetime.now(UTC)
