"""What was seen of one plan's target so far. It travels in the plan's record, from step to step."""

from __future__ import annotations

import zlib
from base64 import b85decode, b85encode
from functools import reduce
from itertools import pairwise
from operator import add
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dispatcher.errors import FaultUnobservedError
from workers.observers.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MAX_LENGTH", "Seen"]

MAX_LENGTH = 2000
"""Of the text, in characters."""

MAX_PARTS = 10
"""How many tallies there are of the time of the fault."""


class Seen(BaseModel):
    """The tallies of one plan.

    The time of the fault is kept in parts, because its real begin and end may become known late.
    Only parts that are wholly within the real window count.
    """

    model_config = ConfigDict(frozen=True)

    before: Tally = Tally()
    """The last measurement before the fault."""

    during: tuple[Tally, ...] = Field(default=())
    """Measurements while the fault was in force, in their order. A long one has several parts."""

    next_ms: int | None = None
    """When the first unsent request is due during the fault, on the Redis server's clock."""

    looked_ms: int | None = None
    """When the last measurement during the fault ended."""

    after: Tally = Tally()
    """All measurements after the fault."""

    last: Tally = Tally()
    """The last of these."""

    @classmethod
    def of(cls, text: str) -> Self:
        """What `to_text` wrote; nothing seen yet if that is empty.

        Raises `FaultUnobservedError` if another version of the worker wrote it.
        """
        if not text:
            return cls()
        try:
            return cls.model_validate_json(zlib.decompress(b85decode(text)))
        except (ValueError, zlib.error, ValidationError) as exc:
            message = (
                "what was seen of the target before cannot be read: another version of a worker wrote it"
            )
            raise FaultUnobservedError(message) from exc

    def to_text(self) -> str:
        """As text. Parts are merged until it has `MAX_LENGTH` characters at most, or there is one part."""
        text = self._text()
        if len(text) <= MAX_LENGTH or len(self.during) == 1:
            return text
        return self.model_copy(update={"during": _with_fewer_parts(self.during)}).to_text()

    def _text(self) -> str:
        written = self.model_dump_json(exclude_defaults=True).encode()
        return b85encode(zlib.compress(written)).decode()

    def seen_before(self, look: Tally) -> Self:
        """With this measurement of the target before its fault, instead of an earlier one."""
        return self.model_copy(update={"before": look})

    def seen_during(self, look: Tally) -> Self:
        """With one more measurement, or part of one, while the fault was in force."""
        parts = (*self.during, look)
        return self.model_copy(
            update={"during": parts if len(parts) <= MAX_PARTS else _with_fewer_parts(parts)}
        )

    def seen_after(self, look: Tally) -> Self:
        """With one more measurement after the fault."""
        return self.model_copy(update={"after": self.after + look, "last": look})

    def within(self, begin_ms: float, end_ms: float) -> Tally:
        """What was seen from `begin_ms` until `end_ms`, as far as whole parts are there."""
        parts = [
            part
            for part in self.during
            if part.first_ms is not None
            and part.last_ms is not None
            and begin_ms <= part.first_ms
            and part.last_ms <= end_ms
        ]
        return reduce(add, parts, Tally())


def _with_fewer_parts(parts: Sequence[Tally]) -> tuple[Tally, ...]:
    """One less: two neighbours become one. Parts remain short near both ends, which may prove to be outside
    of the real window."""
    shares = [_share_of_distance(pair, parts) for pair in pairwise(parts)]
    at = shares.index(min(shares))
    return (*parts[:at], parts[at] + parts[at + 1], *parts[at + 2 :])


def _share_of_distance(pair: tuple[Tally, Tally], parts: Sequence[Tally]) -> float:
    """How long the pair lasts, as a share of how far its far side is from the nearer end of all."""
    begin_ms, end_ms = pair[0].first_ms or 0, pair[1].last_ms or 0
    distance_ms = min(end_ms - (parts[0].first_ms or 0), (parts[-1].last_ms or 0) - begin_ms)
    return (end_ms - begin_ms) / max(1, distance_ms)
