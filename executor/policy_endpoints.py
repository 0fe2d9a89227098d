"""The endpoints of the policy API."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 (FastAPI reads the annotations)
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, HTTPException, Path
from fastapi.responses import JSONResponse

from executor.control_plane import EnvoyError
from executor.faults import ConflictError, TooManyFaultsError
from executor.policies import NoPolicy, Policy, PolicyDeleted
from executor.refusals import refusals

if TYPE_CHECKING:
    from collections.abc import Container

    from executor.policies import Policies

__all__ = ["add_policies"]

Name = Annotated[str, Path(max_length=1024)]


def add_policies(app: FastAPI, policies: Policies, services: Container[str]) -> None:
    """Serve the policy API as well. `services` are those that faults may hit."""
    endpoints = _Endpoints(policies, services)
    add = partial(app.add_api_route, tags=["policies"], response_model_exclude_none=True)
    all_of_them, one = "/v1/policies", "/v1/policies/{name}"
    missing: dict[int | str, dict[str, Any]] = {
        404: {"model": NoPolicy, "description": "There is no such policy, or not any more"}
    }
    links = {
        name: {"operationId": f"policies_{name}", "parameters": {"name": "$response.body#/metadata/name"}}
        for name in ("get", "delete")
    }
    created: dict[int | str, dict[str, Any]] = {201: {"links": links}}
    refused = refusals(400, 401, 404, 409, 503)
    add(all_of_them, endpoints.put, methods=["POST"], status_code=201, responses=created | refused)
    add(all_of_them, endpoints.list, methods=["GET"], responses=refusals(401), response_model=list[Policy])
    add(one, endpoints.get, methods=["GET"], responses=refusals(400, 401) | missing, response_model=Policy)
    add(
        one,
        endpoints.delete,
        methods=["DELETE"],
        responses=refusals(400, 401, 503) | missing,
        response_model=PolicyDeleted,
    )


class _Endpoints:
    def __init__(self, policies: Policies, services: Container[str]) -> None:
        self._policies = policies
        self._services = services

    async def put(self, policy: Policy) -> Policy:
        """Create a policy, or replace the one that has its name, whose time begins again."""
        service = policy.spec.selector.service
        if service not in self._services:
            raise HTTPException(404, f"there is no service {service!r}")
        try:
            await self._policies.put(policy)
        except ConflictError as exc:
            raise HTTPException(409, str(exc)) from exc
        except TooManyFaultsError as exc:
            raise HTTPException(429, str(exc)) from exc
        except EnvoyError as exc:
            raise HTTPException(503, str(exc)) from exc
        return policy

    async def list(self) -> Sequence[Policy]:
        """All policies whose faults are on. One that is absent is over."""
        return self._policies.all()

    async def get(self, name: Name) -> Policy | JSONResponse:
        """The policy, as long as its fault is on."""
        return self._policies.find(name) or _missing(name)

    async def delete(self, name: Name) -> PolicyDeleted | JSONResponse:
        """End the policy's fault now."""
        try:
            deleted = await self._policies.delete(name)
        except EnvoyError as exc:
            raise HTTPException(503, f"policy {name!r} was not taken away: {exc}") from exc
        return PolicyDeleted(message=f"policy {name} deleted") if deleted else _missing(name)


def _missing(name: str) -> JSONResponse:
    return JSONResponse(NoPolicy(message=f"there is no policy {name!r}").model_dump(), status_code=404)
