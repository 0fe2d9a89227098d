"""What a driver or an observer returned, checked before a plan ends with it.

Drivers of other packages may return anything. What is wrong ends the plan with `ExecutorProtocolError`, which
names the driver and each field.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from dispatcher.errors import ExecutorProtocolError
from dispatcher.observations import Figures, RawObservation
from dispatcher.settings.validation import problems_of
from workers.drivers.answers import has_no_number
from workers.drivers.base import FaultState, FaultStatus
from workers.drivers.figures import check_figures

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["checked_observation", "checked_status"]

OTHERS = ("baseline", "recovery")
"""Figures of other windows that an observation holds."""


def checked_observation(source: str, returned: object) -> RawObservation:
    """The observation that a method, `source`, returned.

    Raises `ExecutorProtocolError` for anything else, for fields that no observation can have, and for figures
    that contradict each other.
    """
    if not isinstance(returned, RawObservation):
        raise _wrong(source, f"returned no observation, but {type(returned).__name__}")
    given = vars(returned)
    fields = {name: given[name] for name in RawObservation.model_fields if name in given}
    fields |= {name: vars(fields[name]) for name in OTHERS if isinstance(fields.get(name), Figures)}
    trace_data = fields.pop("trace_data", None)
    try:
        observation = RawObservation.model_validate(fields)
    except ValidationError as exc:
        problems = "; ".join(" ".join(each) for each in problems_of(exc))
        raise _invalid(source, problems) from exc
    if problem := _contradiction(observation) or _not_json(
        {"trace_data": trace_data, "logs": observation.logs, "execution_id": observation.execution_id}
    ):
        raise _invalid(source, problem)
    # A trace is costly to check field by field.
    return observation.model_copy(update={"trace_data": trace_data})


def checked_status(source: str, returned: object) -> FaultStatus:
    """The status that a method, `source`, returned. Raises `ExecutorProtocolError` for anything else."""
    if not isinstance(returned, FaultStatus):
        raise _wrong(source, f"returned no FaultStatus, but {type(returned).__name__}")
    state: object = returned.state
    if not isinstance(state, FaultState):
        found = type(state).__name__
        raise _wrong(source, f"returned a status whose state is not a FaultState, but {found}")
    for name in ("started_at", "ended_at"):
        moment = getattr(returned, name)
        if moment is not None and not (isinstance(moment, datetime) and moment.utcoffset() is not None):
            raise _wrong(source, f"returned a status whose {name} is not a datetime with a time zone")
    return returned


def _contradiction(observation: RawObservation) -> str:
    """What cannot be together in the figures of the fault, or in others that it holds. Empty if all fit."""
    for name, figures in (("", observation), *((name, getattr(observation, name)) for name in OTHERS)):
        if figures is None:
            continue
        try:
            check_figures(figures)
        except ValueError as exc:
            return f"{name} {exc}".strip()
    return ""


def _not_json(fields: Mapping[str, object]) -> str:
    """Which of them cannot be stored, and why. Empty if all can."""
    for name, value in fields.items():
        try:
            if has_no_number(value):
                return f"{name} has NaN or infinity"
        except (PydanticSerializationError, ValueError) as exc:
            return f"{name} is not JSON ({type(exc).__name__})"
    return ""


def _invalid(source: str, problems: str) -> ExecutorProtocolError:
    return _wrong(source, f"returned an observation with wrong fields: {problems}")


def _wrong(source: str, what: str) -> ExecutorProtocolError:
    return ExecutorProtocolError(f"{source} {what}")
