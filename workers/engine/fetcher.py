"""The fetcher takes leases from the ledger, of plans whose messages have arrived and of due plans.

A message names its plan when Celery receives it, and the task's body collects the lease, which is ready by
then. Claims one by one would cost a third of the throughput.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING

from dispatcher.errors import LedgerUnavailableError
from dispatcher.ledger.leases import Denial, Lease
from workers.engine.lease_keeper import MANY_HELD
from workers.engine.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.ledger.leases import Leases, Named
    from workers.engine.completer import Completer
    from workers.engine.lease_keeper import LeaseKeeper

__all__ = ["Fetcher"]

GROUP_S = 0.01
"""Between two calls, so that messages which arrive together are claimed together."""

LONGEST_GROUP_S = 0.05
"""The same while messages keep arriving, and `MANY_HELD` leases are held or asked for."""

LONGEST_SLEEP_S = 0.5
"""Another process may park a plan meanwhile."""

IDLE_SLEEP_S = 2.0
"""While the ledger is empty."""

MOST_NAMED = 500
AHEAD = 32
"""Due plans that wait for a free thread of this worker, at most."""

COLLECT_WITHIN_S = 10.0
"""How long a task's body waits for its lease. The fetcher runs the plan if the lease comes later."""

UNCOLLECTED_S = 30.0
"""A lease whose task does not run within this time (its message was revoked, say) is given back."""

UNBEGUN_S = 2.0
"""So is the lease of a due plan that no thread begins: other tasks may occupy all threads of this worker."""

logger = logging.getLogger(__name__)


class Fetcher(Loop):
    """See the module. `run` has a thread of the pool carry a lease out."""

    def __init__(
        self,
        leases: Leases,
        keeper: LeaseKeeper,
        completer: Completer,
        *,
        threads: int,
        run: Callable[[Lease], object],
    ) -> None:
        super().__init__("fetcher")
        self._leases = leases
        self._keeper = keeper
        self._completer = completer
        self._most_due = threads + AHEAD
        self._run_lease = run
        self._named: dict[Named, bool] = {}
        """What to ask for, and whether a task's body may still collect the answer."""

        self._answers: dict[Named, tuple[Lease | Denial, float]] = {}
        self._answered = threading.Condition()
        self._fetched_at = -math.inf
        """When the ledger was called last, by the monotonic clock."""

        self._unbegun: dict[str, tuple[Lease, float]] = {}
        """The leases of due plans that wait for a thread, by their tokens, and since when."""

        self._due_running: set[str] = set()
        """Due plans that threads carry out, or will come to, by the tokens of their leases. Those that were
        given back are among them, so that a worker whose threads are occupied takes no more."""

        self._counting = threading.Lock()

    def name(self, named: Named) -> None:
        """A message has arrived: ask for its plan's lease."""
        self._named[named] = True
        self.expect()

    def collect(self, named: Named) -> Lease | Denial | None:
        """The lease of a named plan, or why there is none. None if it does not come in time."""
        give_up_at = time.monotonic() + COLLECT_WITHIN_S
        with self._answered:
            while not self._stopping:
                answer = self._answers.pop(named, None)
                if answer is not None:
                    return answer[0]
                if named not in self._named:
                    self.name(named)
                left_s = give_up_at - time.monotonic()
                if left_s <= 0:
                    self._named[named] = False
                    return None
                self._answered.wait(left_s)
        return None

    def begun(self, lease: Lease) -> bool:
        """Whether a thread that comes to the lease may begin. False if it was given back."""
        return self._unbegun.pop(lease.token, None) is not None

    def finished(self, lease: Lease) -> None:
        """A due plan's step has ended, and its thread is free."""
        with self._counting:
            self._due_running.discard(lease.token)
            has_room = len(self._due_running) == self._most_due // 2
        if has_room:
            self.expect()

    def turn(self) -> float:
        self._await_group()
        named = list(self._named)[:MOST_NAMED]
        room = self._most_due - len(self._due_running)
        limit = room if room >= self._most_due // 2 else 0  # a few at a time would cost a call each
        self._give_back(time.monotonic())
        if not named and not limit:
            return LONGEST_SLEEP_S
        fetched = self._leases.fetch(named, limit)
        self._fetched_at = time.monotonic()
        for each in fetched.unreadable:
            self._completer.set_aside(each)
        self._deliver(named, fetched.named)
        for lease in fetched.due:
            self._begin(lease)
        if fetched.next_due_s is None:
            return IDLE_SLEEP_S
        return min(fetched.next_due_s if limit else LONGEST_SLEEP_S, LONGEST_SLEEP_S)

    def _await_group(self) -> None:
        """Let more messages arrive: the more of them share a call, the less each costs.

        What comes after a quiet time does not wait.
        """
        now = time.monotonic()
        seen, wait_s, give_up_at = -1, self._fetched_at + GROUP_S - now, now + LONGEST_GROUP_S - GROUP_S
        while wait_s > 0 and len(self._named) > seen:
            seen = len(self._named)
            time.sleep(wait_s)
            is_busy = seen + len(self._keeper) >= MANY_HELD
            wait_s = GROUP_S if is_busy and time.monotonic() < give_up_at else 0.0

    def stop(self) -> None:
        """End, and give back the leases that no task has collected, and no thread has begun."""
        super().stop()
        with self._answered:
            uncollected = [answer for answer, _ in self._answers.values()]
            self._answers.clear()
            self._answered.notify_all()
        self._give_back_unbegun(math.inf)
        for answer in (*uncollected, *self._last_answers()):
            if isinstance(answer, Lease):
                self._completer.release(answer)

    def _last_answers(self) -> list[Lease | Denial]:
        """Of messages that have just arrived: given back, their plans go on elsewhere at once."""
        try:
            answers = self._leases.fetch(list(self._named), 0).named
        except LedgerUnavailableError as exc:
            logger.warning(
                "%d plans begin without their messages, within a minute: %s", len(self._named), exc
            )
            return []
        for answer in answers:
            if isinstance(answer, Lease):
                self._keeper.hold(answer)
        return answers

    def _deliver(self, named: list[Named], answers: list[Lease | Denial]) -> None:
        now, abandoned = time.monotonic(), []
        with self._answered:
            for each, answer in zip(named, answers, strict=True):
                wanted = self._named.pop(each, True)
                if isinstance(answer, Lease):
                    self._keeper.hold(answer)
                elif self._has_lease_for(each):  # a copy of the message came before the first task has run
                    continue
                if wanted:
                    self._answers[each] = answer, now
                elif isinstance(answer, Lease):
                    abandoned.append(answer)
            self._answered.notify_all()
        for lease in abandoned:
            self._begin(lease)

    def _has_lease_for(self, named: Named) -> bool:
        answer = self._answers.get(named)
        return answer is not None and isinstance(answer[0], Lease)

    def _begin(self, lease: Lease) -> None:
        self._keeper.hold(lease)
        with self._counting:
            self._due_running.add(lease.token)
        self._unbegun[lease.token] = lease, time.monotonic()
        try:
            self._run_lease(lease)
        except RuntimeError:  # the pool has been shut down, or gets no more threads
            if self.begun(lease):
                self._completer.release(lease)
            self.finished(lease)

    def _give_back(self, now: float) -> None:
        """Give back what waits here in vain: the plans are due at once, for any worker."""
        if self._unbegun:
            self._give_back_unbegun(now - UNBEGUN_S)
        with self._answered:
            late = [named for named, (_, at) in self._answers.items() if at < now - UNCOLLECTED_S]
            answers = [self._answers.pop(named)[0] for named in late]
        for answer in answers:
            if isinstance(answer, Lease):
                self._completer.release(answer)

    def _give_back_unbegun(self, before: float) -> None:
        for lease, since in dict(self._unbegun).values():
            if since < before and self.begun(lease):
                self._completer.release(lease)
