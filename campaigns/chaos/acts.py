"""Acts of chaos, in random order from a seed."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import redis
import requests
from kombu.exceptions import KombuError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from benchmarks.stage.processes import Process
    from benchmarks.stage.stage import Stage

STOPPED_FOR_S = 8.0
"""Longer than a lease."""

DOWN_FOR_S = 0.7
EPISODE_S = 2.0
ERRORS_FOR_S = 3.0
UNUSED_PORT = "1"

ERROR_REPLIES = {
    "READONLY": (["REPLICAOF", "127.0.0.1", UNUSED_PORT], ["REPLICAOF", "NO", "ONE"]),
    "NOREPLICAS": (
        ["CONFIG", "SET", "min-replicas-to-write", "1"],
        ["CONFIG", "SET", "min-replicas-to-write", "0"],
    ),
    "OOM": (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
}
"""The commands that make Redis answer writes with an error, and those that end that."""


class Chaos:
    """Kills, stops and disturbs the parts of a stage."""

    def __init__(
        self,
        stage: Stage,
        chance: random.Random,
        *,
        kills: int,
        redis_kills: int,
        more: Iterable[Callable[[], None]],
    ) -> None:
        """`kills` are kills of workers. There is one of each other act, of `more` too, for 10 of them."""
        self._stage = stage
        self._random = chance
        others = [self._stop_worker, self._kill_executor, *more]
        others += [partial(self._misbehave, how) for how in ("hang", "500", "garbage", "slow")]
        others += [partial(self._answer_with, error) for error in ERROR_REPLIES]
        self._acts = others * max(1, kills // 10)
        self._acts += [self._kill_worker] * kills + [self._kill_redis] * redis_kills
        self._random.shuffle(self._acts)

    def run(self, for_s: float) -> None:
        """Carry out all acts, spread over `for_s` seconds, or longer if they take longer."""
        gap_s = for_s / len(self._acts)
        for act in self._acts:
            begun = time.time()
            with suppress(redis.RedisError, requests.RequestException, KombuError):
                act()
            time.sleep(max(0.0, gap_s * self._random.uniform(0.5, 1.5) - (time.time() - begun)))

    def _kill_worker(self) -> None:
        victim = self._random.choice(self._stage.workers)
        victim.kill()
        time.sleep(0.1)
        victim.start()

    def _stop_worker(self) -> None:
        """The worker hangs, and goes on after it has lost its leases."""
        victim = self._random.choice(self._stage.workers)
        victim.signal(signal.SIGSTOP)
        threading.Timer(STOPPED_FOR_S, victim.signal, [signal.SIGCONT]).start()

    def _kill_redis(self) -> None:
        self._restart(self._stage.redis)

    def _kill_executor(self) -> None:
        self._restart(self._stage.executor)

    def _restart(self, part: Process) -> None:
        part.kill()
        time.sleep(DOWN_FOR_S)
        part.start()
        self._stage.wait_until_ready()

    def _misbehave(self, how: str) -> None:
        asked: dict[str, str | float] = {"how": how, "seconds": EPISODE_S}
        requests.post(f"{self._stage.executor_url}/misbehave", json=asked, timeout=2)

    def _answer_with(self, error: str) -> None:
        begin, end = ERROR_REPLIES[error]
        with self._stage.redis_client() as client:
            client.execute_command(*begin)
            time.sleep(ERRORS_FOR_S)
            client.execute_command(*end)
