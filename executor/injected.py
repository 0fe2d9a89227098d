"""What Envoy injects, and until when: without a renewal it drops all of it by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from executor.control_plane import TTL_S
from executor.routes import runtime_layer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from executor.clock import Clock
    from executor.control_plane import ControlPlane
    from executor.faults import Fault
    from executor.routes import RouteTable

__all__ = ["MARGIN_S", "Injected"]

RENEW_AFTER_S = TTL_S / 3

MARGIN_S = 0.5
"""A renewal that begins later than this before Envoy drops all faults may come too late."""


class Injected:
    """The faults that one Envoy has on. One coroutine at a time may change them."""

    def __init__(self, control: ControlPlane, table: RouteTable, clock: Clock) -> None:
        self._control = control
        self._table = table
        self._clock = clock
        self._on: set[str] = set()
        """The faults that are on by what was published last."""

        self._have_renewed(clock.steady_s())

    async def start(self, wanted: Sequence[Fault]) -> None:
        """Have these ready for Envoy."""
        await self._control.start(self._table.configuration(wanted), runtime_layer(wanted))
        self._on = {fault.apply_id for fault in wanted}

    def start_again(self) -> None:
        """Have no faults ready for an Envoy that is about to start."""
        self._control.begin_with(self._table.configuration([]), runtime_layer([]))
        self._on = set()

    def give_up(self, reason: str) -> None:
        """All calls that wait for Envoy raise `EnvoyError`, because it has ended."""
        self._control.give_up(reason)

    async def taken(self) -> None:
        """Wait until Envoy has taken what is ready for it. Raises `EnvoyError`."""
        await self._control.taken()
        self._have_renewed(self._clock.steady_s())

    async def renew(self, goes_on: Sequence[Fault]) -> None:
        """Have Envoy inject these faults for another `TTL_S`, and no others. Raises `EnvoyError`."""
        sent_s, on = self._clock.steady_s(), {fault.apply_id for fault in goes_on}
        if on == self._on:
            await self._control.renew()
        else:  # one that has ended or lapsed must not be renewed
            await self._control.publish(None, runtime_layer(goes_on))
        self._have_renewed(sent_s)
        self._on = on

    async def inject(self, wanted: Sequence[Fault]) -> None:
        """Have Envoy inject these faults, new ones among them, and no others. Raises `EnvoyError`."""
        sent_s = self._clock.steady_s()
        await self._control.publish(self._table.configuration(wanted), runtime_layer(wanted))
        self._have_renewed(sent_s)
        self._on = {fault.apply_id for fault in wanted}

    @property
    def renew_at_s(self) -> float:
        """When the next renewal is due, by the steady clock."""
        return self.renewed_s + RENEW_AFTER_S

    @property
    def lapsed(self) -> bool:
        """Whether Envoy has dropped all faults, or may do so before a renewal reaches it."""
        return self._clock.steady_s() > self._sent_s + TTL_S - MARGIN_S

    @property
    def lapsed_s(self) -> float:
        """When Envoy has dropped them at the latest, by the steady clock."""
        return min(self.renewed_s + TTL_S, self._clock.steady_s())

    def _have_renewed(self, sent_s: float) -> None:
        """Envoy has taken what was sent at `sent_s`."""
        self._sent_s = sent_s
        self.renewed_s = self._clock.steady_s()
        """When Envoy was last known to have the faults on, by the steady clock."""

        self.renewed_at: datetime = self._clock.now()
        """The same moment, by the other clock."""
