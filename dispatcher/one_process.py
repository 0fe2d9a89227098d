"""What has connections, locks or threads, and so cannot go to another process."""

from __future__ import annotations

from typing import ClassVar, Self

__all__ = ["OfOneProcess"]


class OfOneProcess:
    """A copy is the same object. A pickle is refused with what to do instead."""

    instead: ClassVar[str] = "make one in each process"
    """What to do, for the message."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> str:
        raise TypeError(f"{type(self).__name__} cannot be pickled: {self.instead}")
