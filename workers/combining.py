"""Scripts of many threads in few exchanges with Redis.

What threads want to send while an exchange is under way goes with the next one, all of it, carried by one of
them (D. Hendler, I. Incze, N. Shavit, M. Tzafrir: Flat combining and the synchronization-parallelism
tradeoff, SPAA 2010; databases know it as group commit). Nobody waits for company: where nothing is under way,
a thread sends at once, and alone.
"""

from __future__ import annotations

import copy
import itertools
import threading
from typing import TYPE_CHECKING, Any

from dispatcher.scripts import Scripts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import redis

    from dispatcher.scripts import Call

__all__ = ["CombinedScripts"]


class CombinedScripts(Scripts):
    """For threads that no signal interrupts: one that waits, and is interrupted, would hold up the others."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self._mutex = threading.Lock()
        self._waiting: list[_Turn] = []
        self._under_way = False

    def exchange(self, calls: Sequence[Call]) -> list[Any]:
        turn = _Turn(calls)
        with self._mutex:
            self._waiting.append(turn)
            waits, self._under_way = self._under_way, True
        if waits:
            turn.wait()
        if turn.replies is None:
            self._carry(turn)
        if turn.error is not None:
            raise turn.error
        return turn.replies or []

    def _carry(self, own: _Turn) -> None:
        """Have one exchange for all that wait, then let one of those go on who have come meanwhile."""
        with self._mutex:
            turns, self._waiting = self._waiting, []
        error: BaseException | None = None
        replies: Iterator[Any] = iter(())
        try:
            replies = iter(super().exchange([call for turn in turns for call in turn.calls]))
        except BaseException as exc:  # noqa: BLE001 (each turn raises it)
            error = exc
        with self._mutex:
            self._under_way = bool(self._waiting)
            if self._waiting:
                self._waiting[0].wake()
        for turn in turns:
            turn.replies = list(itertools.islice(replies, len(turn.calls)))
            turn.error = copy.copy(error)  # for each thread adds its own traceback
            if turn is not own:
                turn.wake()


class _Turn:
    """What one thread wants to send, and what it hears of it: replies or an error."""

    __slots__ = ("_woken", "calls", "error", "replies")

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = calls
        self.replies: list[Any] | None = None
        self.error: BaseException | None = None
        self._woken = threading.Lock()
        self._woken.acquire()

    def wait(self) -> None:
        """Until somebody has sent it, or it is for this thread to send."""
        self._woken.acquire()

    def wake(self) -> None:
        """Let its thread, which waits or will, go on."""
        self._woken.release()
