"""How long to wait before a failed call is tried again (specification 5.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, assert_never

from dispatcher.settings.executors import RetryStrategy

if TYPE_CHECKING:
    from dispatcher.settings.executors import ExecutorClientConfig

__all__ = ["RetryPolicy"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A strategy with its numbers.

    With `jitter` 0 the delays are the specification's. Otherwise that share of each delay is left to chance,
    so that calls which failed together do not come back together: 0.5 is "equal jitter", 1 "full jitter"
    (M. Brooker, Exponential Backoff and Jitter, AWS Architecture Blog, 2015).
    """

    strategy: RetryStrategy
    max_retries: int
    initial_s: float
    cap_s: float
    jitter: float

    @classmethod
    def of(cls, config: ExecutorClientConfig) -> Self:
        """The policy for one Executor."""
        return cls(
            strategy=config.retry_strategy,
            max_retries=config.max_retries,
            initial_s=config.initial_retry_delay_sec,
            cap_s=config.max_retry_delay_sec,
            jitter=config.retry_jitter,
        )

    def delay_s(self, attempt: int, draw: float) -> float | None:
        """Seconds to wait after the failed attempt number `attempt` (1 is the first). None: give up.

        `draw` is a random number from 0 to 1.
        """
        backoff_s = None if attempt > self.max_retries else self._backoff_s(self.strategy, attempt)
        return None if backoff_s is None else min(backoff_s, self.cap_s) * (1 - self.jitter * draw)

    def _backoff_s(self, strategy: RetryStrategy, attempt: int) -> float | None:
        match strategy:
            case RetryStrategy.NONE:
                return None
            case RetryStrategy.LINEAR_BACKOFF:
                return self.initial_s * attempt
            case RetryStrategy.EXPONENTIAL_BACKOFF:
                return self.initial_s * 2.0 ** (attempt - 1)
        assert_never(strategy)
