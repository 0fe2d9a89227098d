"""Reads an optimiser's points: a value for each dimension of its search space, whether it applies or not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, SupportsFloat, TypedDict, Unpack, get_args

from dispatcher.errors import InvalidPlanError

__all__ = ["PercentageIs", "PointOptions", "PointReading", "read_point"]

PercentageIs = Literal["percent", "share"]
"""Unit of a point's percentage: 0 to 100, or 0 to 1."""


class PointOptions(TypedDict, total=False):
    """The arguments of `FaultPlan.from_point` besides the point."""

    percentage_is: PercentageIs
    duration_seconds: int | None
    service: str | None
    api: str | None


SECONDS_OF = {"delay_seconds": 1.0, "delay": 1.0, "delay_ms": 0.001}
"""The keys that a delay may have, and how many seconds one of each is."""

STATUS_KEYS = ("abort_http_status", "status")
GRPC = "grpc"
GRPC_KEYS: tuple[str, ...] = ("grpc_status",)
KEYS_OF = {"delay": tuple(SECONDS_OF), "abort": STATUS_KEYS}
"""What faults of each type have of their own. Those of gRPC calls have `GRPC_KEYS` for a status."""

OTHER_KEYS = (
    "service",
    "api",
    "fault_type",
    "percentage",
    "duration_seconds",
    "protocol",
    "headers",
    "start_delay_ms",
    "start_time",
    "takes_effect_sec",
    "min_requests",
)
MOST_PERCENT = 100


@dataclass(frozen=True, slots=True)
class PointReading:
    """What becomes of a point."""

    fields: dict[str, object] = field(default_factory=dict)
    """The fields of its plan."""

    notes: list[str] = field(default_factory=list)
    """What was converted, inferred or left out, in a sentence each."""

    problems: list[list[str]] = field(default_factory=list)
    """Each key that is wrong, and what is wrong with it."""


def read_point(point: Mapping[str, object], **options: Unpack[PointOptions]) -> PointReading:
    """The plan's fields in a point, see `FaultPlan.from_point`.

    Raises `InvalidPlanError`, which names every key that makes no sense in a point.
    """
    if not isinstance(point, Mapping):
        raise InvalidPlanError("invalid point: it must be a mapping", [["(whole)", "must be a mapping"]])
    reading = PointReading()
    _take_the_rest(point, options, reading)
    _take_the_fault(point, reading)
    _take_the_percentage(options.get("percentage_is", "percent"), reading)
    if reading.problems:
        sentence = "; ".join(" ".join(problem) for problem in reading.problems)
        raise InvalidPlanError(f"invalid point: {sentence}", reading.problems)
    return reading


def _take_the_rest(point: Mapping[str, object], options: PointOptions, reading: PointReading) -> None:
    """All that no kind of fault owns, each as it is."""
    known = {*OTHER_KEYS, *SECONDS_OF, *STATUS_KEYS, *GRPC_KEYS}
    reading.problems.extend([str(key), "is not a key of a point"] for key in point if key not in known)
    for key in OTHER_KEYS:
        value, given = point.get(key), options.get(key)
        if given is not None and value is not None and given != value:
            reading.notes.append(f"{key} of the point is left out, because the call gives another one")
        chosen = value if given is None else given
        if chosen is not None:
            reading.fields[key] = chosen


def _take_the_fault(point: Mapping[str, object], reading: PointReading) -> None:
    """What belongs to the fault's type, and nothing else."""
    keys_of, others = KEYS_OF, GRPC_KEYS
    if point.get("protocol") == GRPC:
        keys_of, others = KEYS_OF | {"abort": GRPC_KEYS}, STATUS_KEYS
    present = {kind: [key for key in keys if _is_set(point.get(key))] for kind, keys in keys_of.items()}
    reading.notes.extend(
        f"{key} is left out, because it belongs to faults of another protocol"
        for key in others
        if _is_set(point.get(key))
    )
    kind = reading.fields.get("fault_type")
    kind = getattr(kind, "value", kind)  # of any enumeration
    if kind is None:
        kind = _inferred(present, reading)
    reading.fields["fault_type"] = kind
    for owner, keys in present.items():
        if kind != owner:
            reading.notes.extend(f"{key} is left out, because it belongs to {owner} faults" for key in keys)
        elif len(keys) > 1:
            reading.problems.append([keys[1], f"is the same as {keys[0]}, and the point has both"])
        elif keys:
            _take(keys[0], point[keys[0]], reading)


def _inferred(present: Mapping[str, list[str]], reading: PointReading) -> str | None:
    """The only type of fault that the point sets something of."""
    kinds = [kind for kind, keys in present.items() if keys]
    if len(kinds) == 1:
        reading.notes.append(f"fault_type is {kinds[0]}, because the point sets only {present[kinds[0]][0]}")
        return kinds[0]
    what = "both a delay and a status" if kinds else "neither a delay nor a status"
    reading.problems.append(["fault_type", f"is required, because the point sets {what}"])
    return None


def _take(key: str, value: object, reading: PointReading) -> None:
    """A delay in seconds, or a status."""
    if key in GRPC_KEYS:
        reading.fields[key] = value
        return
    if key in STATUS_KEYS:
        reading.fields["abort_http_status"] = value
        return
    number = _number(value)
    if SECONDS_OF[key] == 1.0 or number is None:
        reading.fields["delay_seconds"] = value
        return
    reading.fields["delay_seconds"] = number * SECONDS_OF[key]
    reading.notes.append(f"{key} {number:g} is a delay of {number * SECONDS_OF[key]:g} s")


def _take_the_percentage(percentage_is: PercentageIs, reading: PointReading) -> None:
    if percentage_is not in get_args(PercentageIs):
        reading.problems.append(["percentage_is", 'must be "percent" or "share"'])
    number = _number(reading.fields.get("percentage"))
    if number is None or not math.isfinite(number):
        return  # the plan refuses it
    if percentage_is == "share" and not 0 <= number <= 1:
        problem = "must be from 0 to 1, because the call says that it is a share"
        reading.problems.append(["percentage", problem])
    elif percentage_is == "percent" and 0 < number < 1:
        problem = 'is below 1 percent: if it is a share, say percentage_is="share"'
        reading.problems.append(["percentage", problem])
    percent = number * 100 if percentage_is == "share" else number
    reading.fields["percentage"] = whole = _whole(percent)
    if percentage_is == "share":
        reading.notes.append(f"percentage {number:g} is a share: {whole:g} %")
    elif whole != percent:
        reading.notes.append(f"percentage {number:g} is rounded to {whole:g} %")


def _whole(percent: float) -> float:
    """In whole percent, if it is a percentage at all. What is above 0 stays above it: 0 injects nothing."""
    return max(1, round(percent)) if 0 < percent <= MOST_PERCENT else percent


def _is_set(value: object) -> bool:
    """None, 0 and NaN are what optimisers put where a dimension does not apply."""
    number = _number(value)
    return value is not None and number != 0 and not (number is not None and math.isnan(number))


def _number(value: object) -> float | None:
    """The number that the value is, of any library. None for what merely looks like one."""
    if isinstance(value, bool | str | bytes) or not isinstance(value, SupportsFloat):
        return None
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError):
        return None
