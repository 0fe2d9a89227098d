"""The policy API: faults as policies with names (specification, appendix A, the existing project).

The existing control plane accepts what it cannot carry out. This one refuses that: other matches than one
path with any query and exact headers, a second rule, and a policy that would never end.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from executor.contract import ApiPath, FaultApply, FaultConfig, HeaderName, HeaderValue, Int

if TYPE_CHECKING:
    from executor.faults import Fault
    from executor.injector import Injector

__all__ = ["NoPolicy", "Policies", "Policy", "PolicyDeleted"]

PolicyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$")]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True)


class Metadata(_Part):
    """What the policy is called."""

    name: PolicyName
    version: str = Field(default="v1", max_length=253)


class Selector(_Part):
    """Whose requests are hit."""

    service: str = Field(min_length=1, max_length=253)


QUERY = r"(\?.*)?$"
"""How a regular expression ends that takes a path with any query."""

ONE_PATH = r"""^\^/(?:[!"%&',/0-9:;<=>@A-Z_`a-z~-]|\\[!"$-/:->@\[-`{-~])*\(\\\?\.\*\)\?\$$"""
"""Such an expression: `^`, the path, whose special characters are escaped, and `QUERY`."""

MAX_API_LENGTH = 2048


class Path(_Part):
    """The path of the requests that are hit, with any query: as `exact`, or as `regex`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [wanted], "properties": {wanted: {"type": "string"}, other: {"type": "null"}}}
                for wanted, other in (("exact", "regex"), ("regex", "exact"))
            ]
        }
    )

    exact: ApiPath | None = None
    regex: Annotated[str, Field(pattern=ONE_PATH, max_length=2 * MAX_API_LENGTH)] | None = None
    """One path with any query, as the existing control plane needs it: `^/a\\.b(\\?.*)?$`."""

    @model_validator(mode="after")
    def _is_one_path(self) -> Self:
        if (self.exact is None) == (self.regex is None):
            raise ValueError("one of exact and regex is required, and not both")
        if len(self.api) > MAX_API_LENGTH:
            raise ValueError(f"regex must be of a path of at most {MAX_API_LENGTH} characters")
        return self

    @property
    def api(self) -> str:
        """The path itself."""
        if self.regex is None:
            return self.exact or ""
        return re.sub(r"\\(.)", r"\1", self.regex.removeprefix("^").removesuffix(QUERY))


class HeaderMatch(_Part):
    """A header that a request must have, with exactly this value."""

    name: HeaderName
    exact: HeaderValue


class Match(_Part):
    """Which requests are hit."""

    path: Path
    headers: Annotated[list[HeaderMatch], Field(min_length=1, max_length=8)] | None = None
    """All of them must match. No two may have the same name."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if len(self.values or ()) < len(self.headers or ()):
            raise ValueError("headers must have each name once")
        return self

    @property
    def values(self) -> dict[str, str] | None:
        """The headers by their names."""
        return {each.name: each.exact for each in self.headers} if self.headers else None


class Delay(_Part):
    """How long each affected request is held."""

    fixed_delay_ms: Int = Field(ge=1, le=60_000)


class Abort(_Part):
    """What each affected request is answered with."""

    http_status: Int = Field(alias="httpStatus", ge=400, le=599)


class PolicyFault(_Part):
    """What happens to the requests: one of `delay` and `abort`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [wanted], "properties": {wanted: {"type": "object"}, other: {"type": "null"}}}
                for wanted, other in (("delay", "abort"), ("abort", "delay"))
            ]
        }
    )

    percentage: Int = Field(ge=0, le=100)
    start_delay_ms: Int = Field(default=0, ge=0, le=60_000)
    duration_seconds: Int = Field(ge=1, le=86_400)
    delay: Delay | None = None
    abort: Abort | None = None

    @model_validator(mode="after")
    def _is_one_fault(self) -> Self:
        if (self.delay is None) == (self.abort is None):
            raise ValueError("one of delay and abort is required, and not both")
        return self


class Rule(_Part):
    """A fault, and the requests that it hits."""

    match: Match
    fault: PolicyFault


class Spec(_Part):
    """What the policy does."""

    selector: Selector
    rules: list[Rule] = Field(min_length=1, max_length=1)


class Policy(_Part):
    """One fault with a name."""

    metadata: Metadata
    spec: Spec

    @property
    def request(self) -> FaultApply:
        """The same fault as the faults API has it."""
        rule = self.spec.rules[0]
        fault = rule.fault
        return FaultApply(
            service=self.spec.selector.service,
            api=rule.match.path.api,
            headers=rule.match.values,
            fault_type="delay" if fault.delay else "abort",
            percentage=fault.percentage,
            duration_seconds=fault.duration_seconds,
            fault_config=FaultConfig(
                delay_ms=fault.delay.fixed_delay_ms if fault.delay else None,
                http_status=fault.abort.http_status if fault.abort else None,
                start_delay_ms=fault.start_delay_ms,
            ),
        )


class PolicyDeleted(BaseModel):
    """A policy has gone."""

    message: str


class Missing(BaseModel):
    """What there is none of."""

    resource: Literal["policy"] = "policy"


class NoPolicy(BaseModel):
    """There is no policy of this name, or not any more."""

    error: Literal["not_found"] = "not_found"
    message: str
    details: Missing = Missing()


class Policies:
    """The policies of one Executor. One whose fault is over has gone."""

    def __init__(self, injector: Injector) -> None:
        self._injector = injector
        self._policies: dict[str, tuple[Policy, Fault]] = {}
        self._changing = asyncio.Lock()

    async def put(self, policy: Policy) -> None:
        """Inject its fault, in the place of that of an older policy with its name.

        Raises `ConflictError`, `EnvoyError`.
        """
        name = policy.metadata.name
        async with self._changing:
            self._forget()
            await self._end(name)
            self._policies[name] = (policy, await self._injector.apply(policy.request, None))

    def find(self, name: str) -> Policy | None:
        """The policy, as long as its fault is on."""
        policy, fault = self._policies.get(name, (None, None))
        return policy if fault and fault.active else None

    def all(self) -> list[Policy]:
        """All policies whose faults are on."""
        return [policy for policy, fault in self._policies.values() if fault.active]

    async def delete(self, name: str) -> bool:
        """End its fault. False if there is no such policy. Raises `EnvoyError`."""
        async with self._changing:
            known = self.find(name) is not None
            await self._end(name)
            return known

    async def _end(self, name: str) -> None:
        if name in self._policies:
            await self._injector.end(self._policies[name][1])
            del self._policies[name]

    def _forget(self) -> None:
        self._policies = {name: each for name, each in self._policies.items() if each[1].active}
