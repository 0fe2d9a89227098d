"""What a driver or an observer returned, checked before a plan ends with it.

Drivers of other packages may return anything. What is wrong ends the plan with `ExecutorProtocolError`, which
names the driver and each field.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

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


def checked_observation(
    source: str, returned: object, collected_at: datetime | None = None
) -> RawObservation:
    """The observation that a method, `source`, returned; its timestamp is `collected_at` if that is given.

    Raises `ExecutorProtocolError` for anything else, for fields that no observation can have, and for figures
    that contradict each other.
    """
    if not isinstance(returned, RawObservation):
        raise _wrong(source, f"returned no observation, but {type(returned).__name__}")
    fields = dict(vars(returned))
    for name in OTHERS:
        if isinstance(fields.get(name), Figures):
            fields[name] = vars(fields[name])
    trace_data = fields.pop("trace_data", None)
    try:
        observation = RawObservation.model_validate(fields)
    except ValidationError as exc:
        problems = "; ".join(" ".join(each) for each in problems_of(exc))
        raise _invalid(source, problems) from exc
    texts = {"trace_data": trace_data, "logs": observation.logs, "execution_id": observation.execution_id}
    try:
        check_figures(observation)
        written = to_json(texts)
    except (PydanticSerializationError, ValueError):
        written = b"NaN"
    if observation.baseline or observation.recovery or b"NaN" in written or b"Infinity" in written:
        _check_closely(source, observation, texts)
    # A trace is costly to check field by field.
    changes = {"trace_data": trace_data, "timestamp": collected_at or observation.timestamp}
    return observation.model_copy(update=changes)


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


def _check_closely(source: str, observation: RawObservation, texts: Mapping[str, object]) -> None:
    """Raises `ExecutorProtocolError` for figures that contradict each other, and for what is not JSON."""
    name = ""
    try:
        check_figures(observation)
        for name in OTHERS:
            figures = getattr(observation, name)
            if figures is not None:
                check_figures(figures)
    except ValueError as exc:
        raise _invalid(source, f"{name} {exc}".strip()) from exc
    problem = next(filter(None, map(_problem_of, texts.items())), "")
    if problem:
        raise _invalid(source, problem)


def _problem_of(field: tuple[str, object]) -> str:
    """Why a field cannot be stored. Empty if it can."""
    name, value = field
    try:
        return f"{name} has NaN or infinity" if has_no_number(value) else ""
    except (PydanticSerializationError, ValueError) as exc:
        return f"{name} is not JSON ({type(exc).__name__})"


def _invalid(source: str, problems: str) -> ExecutorProtocolError:
    return _wrong(source, f"returned an observation with wrong fields: {problems}")


def _wrong(source: str, what: str) -> ExecutorProtocolError:
    return ExecutorProtocolError(f"{source} {what}")
