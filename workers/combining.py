"""Scripts of many threads in few exchanges with Redis.

What threads want to send while an exchange is under way goes with the next one, all of it, carried by one of
them (D. Hendler, I. Incze, N. Shavit, M. Tzafrir: Flat combining and the synchronization-parallelism
tradeoff, SPAA 2010; databases know it as group commit). A thread that needs no answer before it goes on posts
its calls, and leaves them to the others. Nobody waits for company: where nothing is under way, a thread sends
at once, and alone.
"""

from __future__ import annotations

import copy
import itertools
import logging
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import redis

from dispatcher.scripts import Scripts, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dispatcher.scripts import Call, Outcome

__all__ = ["CombinedScripts"]

logger = logging.getLogger(__name__)


class CombinedScripts(Scripts):
    """For threads that no signal interrupts: one that waits, and is interrupted, would hold up the others."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self._mutex = threading.Lock()
        self._waiting: list[_Turn] = []
        self._under_way = False

    def exchange(self, calls: Sequence[Call]) -> list[Any]:
        turn = _Awaited(calls)
        if self._queue(turn):
            turn.wait()
        if turn.replies is None:
            self._carry()
        if turn.error is not None:
            raise turn.error
        return turn.replies or []

    def post(self, calls: Sequence[Call], then: Callable[[Outcome], None]) -> None:
        """See `Scripts.post`. `then` is called in the context of this call (PEP 567), by whichever thread."""
        if not self._queue(_Posted(calls, then)):
            self._carry()

    def _queue(self, turn: _Turn) -> bool:
        """Whether an exchange is under way, whose thread sees to what comes next."""
        with self._mutex:
            self._waiting.append(turn)
            under_way, self._under_way = self._under_way, True
        return under_way

    def _carry(self) -> None:
        """Have an exchange for all turns that wait; and more of them, while no other thread can."""
        handed_over = False
        while not handed_over:
            with self._mutex:
                turns, self._waiting = self._waiting, []
            error: BaseException | None = None
            replies: Iterator[Any] = iter(())
            try:
                replies = iter(super().exchange([call for turn in turns for call in turn.calls]))
            except BaseException as exc:  # noqa: BLE001 (each turn hears it)
                error = exc
            handed_over = self._hand_over()
            for turn in turns:
                own_error = None if error is None else copy.copy(error)  # each thread adds its traceback
                turn.hear(list(itertools.islice(replies, len(turn.calls))), own_error)

    def _hand_over(self) -> bool:
        """Have a thread that waits carry the turns that have come meanwhile.

        False where there are some, but no such thread.
        """
        with self._mutex:
            self._under_way = bool(self._waiting)
            for turn in self._waiting:
                if isinstance(turn, _Awaited):
                    turn.wake()
                    return True
            return not self._under_way


class _Turn:
    """What one thread wants to send."""

    __slots__ = ("calls",)

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = calls

    def hear(self, replies: list[Any], error: BaseException | None) -> None:
        """Take in what came of the calls."""
        raise NotImplementedError


class _Awaited(_Turn):
    """Its thread waits for the replies."""

    __slots__ = ("_woken", "error", "replies")

    def __init__(self, calls: Sequence[Call]) -> None:
        super().__init__(calls)
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

    def hear(self, replies: list[Any], error: BaseException | None) -> None:
        self.replies, self.error = replies, error
        self.wake()


class _Posted(_Turn):
    """Its thread has gone on."""

    __slots__ = ("_context", "_then")

    def __init__(self, calls: Sequence[Call], then: Callable[[Outcome], None]) -> None:
        super().__init__(calls)
        self._then = then
        self._context = copy_context()

    def hear(self, replies: list[Any], error: BaseException | None) -> None:
        try:
            self._context.run(self._tell, replies, error)
        except Exception:  # others wait for their replies
            logger.exception("what was to be done after an exchange with Redis broke off")

    def _tell(self, replies: list[Any], error: BaseException | None) -> None:
        try:
            outcome: Outcome = error or told(self.calls, replies)
        except redis.RedisError as exc:
            outcome = exc
        self._then(outcome)
