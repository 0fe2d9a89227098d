"""Work in a thread of its own: an interruption of its caller reaches it, however early it comes."""

from __future__ import annotations

import signal
import threading

import pytest

from workers.shield import shield


@pytest.mark.parametrize("round_", range(50))
def test_work_that_is_interrupted_as_it_begins_is_signalled_and_waited_for(round_: int) -> None:
    ended: list[bool] = []
    caller = threading.main_thread().ident
    assert caller is not None

    def work(interrupted: threading.Event) -> None:
        signal.pthread_kill(caller, signal.SIGINT)
        ended.append(interrupted.wait(30))

    with pytest.raises(KeyboardInterrupt):
        shield(work)
    assert ended == [True]


def test_what_the_work_returns_or_raises_comes_out() -> None:
    assert shield(lambda _: 7) == 7
    with pytest.raises(ZeroDivisionError):
        shield(lambda _: 1 / 0)
