"""Lanes whose Executor knows nothing of its data plane, so that a probe observes their targets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from campaigns.calibration.slow_executor import BLIND
from campaigns.calibration.table import RATE_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterable

    from campaigns.calibration.table import Lane

__all__ = ["EXECUTOR", "PROBED", "as_variables", "settings_of"]

EXECUTOR = "probed"
"""Name of the Executor in the settings."""

PROBED = frozenset({"abort after 50 ms", "delay of 500 ms", "clients that wait 3 s"})
"""Names of such lanes. The probe is their only client."""


def settings_of(lanes: Iterable[Lane], executor: str, proxy: str, takes_effect_s: float) -> dict[str, Any]:
    """Settings for the client and for workers. `executor` and `proxy` are URLs of the slow Executor."""
    default = {"base_url": executor, "takes_effect_sec": takes_effect_s}
    probe = {"kind": "probe", "requests_per_sec": RATE_PER_S}
    return {
        "executors": {
            "default": default,
            EXECUTOR: default | {"base_url": executor + BLIND, "observer": probe},
        },
        "services": {
            lane.service: {
                "base_url": proxy,
                "request_timeout_sec": lane.patience_s,
                "apis": {lane.api: {"path": f"{lane.api}?ms={lane.answer_ms}"}},
            }
            for lane in lanes
            if lane.name in PROBED
        },
    }


def as_variables(settings: dict[str, Any]) -> dict[str, str]:
    """The same for the environment of a worker."""
    return {f"DISPATCHER_{name.upper()}": json.dumps(value) for name, value in settings.items()}
