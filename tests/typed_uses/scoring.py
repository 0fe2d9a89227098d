"""Score an observation for a search."""

from datetime import datetime
from typing import assert_type

from pydantic import JsonValue

from dispatcher import Doubt, Effect, Figures, RawObservation, effect_of, wilson_interval


def run(observation: RawObservation) -> float:
    assert_type(observation.latency_p95_ms, float | None)
    assert_type(observation.requests, int | None)
    assert_type(observation.started_at, datetime | None)
    assert_type(observation.baseline, Figures | None)
    assert_type(observation.doubts, tuple[Doubt, ...])
    assert_type(observation.logs, list[str])
    assert_type(observation.to_record(), dict[str, JsonValue])
    if Doubt.FEW_REQUESTS in observation.doubts:
        return 0.0
    effect = effect_of(observation)
    assert_type(effect, Effect)
    low, high = wilson_interval(3, 10)
    return high - low
