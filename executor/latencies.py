"""Mean, spread and percentiles of latencies, without keeping each one."""

from __future__ import annotations

import base64
import math
from typing import Any, Self

from ddsketch import DDSketch
from ddsketch.pb.ddsketch_pb2 import DDSketch as SketchMessage
from ddsketch.pb.proto import DDSketchProto

__all__ = ["Latencies"]

ACCURACY = 0.005
"""How far a percentile may be from the true one, relative to it (C. Masson and others, DDSketch, 2019)."""


class Latencies:
    """Latencies in milliseconds. A figure without a latency behind it is None."""

    def __init__(self) -> None:
        self._count = 0
        self._mean_ms = 0.0
        self._squares = 0.0
        self._sketch = DDSketch(ACCURACY)

    def add(self, latency_ms: float) -> None:
        """Count one more (B. P. Welford, 1962)."""
        self._count += 1
        before = latency_ms - self._mean_ms
        self._mean_ms += before / self._count
        self._squares += before * (latency_ms - self._mean_ms)
        self._sketch.add(latency_ms)

    def to_json(self) -> dict[str, Any]:
        """All of it, for `from_json`."""
        sketch = DDSketchProto.to_proto(self._sketch).SerializeToString()  # type: ignore[no-untyped-call]
        return {
            "count": self._count,
            "mean_ms": self._mean_ms,
            "squares": self._squares,
            "sketch": base64.b64encode(sketch).decode(),
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """What `to_json` has written."""
        latencies = cls()
        latencies._count, latencies._mean_ms = found["count"], found["mean_ms"]
        latencies._squares = found["squares"]
        sketch = SketchMessage()
        sketch.ParseFromString(base64.b64decode(found["sketch"]))
        if latencies._count:
            latencies._sketch = DDSketchProto.from_proto(sketch)  # type: ignore[no-untyped-call]
        return latencies

    @property
    def mean_ms(self) -> float | None:
        """The arithmetic mean."""
        return self._mean_ms if self._count else None

    @property
    def sd_ms(self) -> float | None:
        """The standard deviation of a sample. None for fewer than two latencies."""
        return math.sqrt(self._squares / (self._count - 1)) if self._count > 1 else None

    def percentile_ms(self, percentile: float) -> float | None:
        """The latency that `percentile` per cent (0 to 100) do not exceed, within 0.5 %."""
        value = self._sketch.get_quantile_value(percentile / 100)
        return None if value is None else float(value)
