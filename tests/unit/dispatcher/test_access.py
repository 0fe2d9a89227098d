"""What a Dispatcher and its handles share is made once, however many threads come together."""

from __future__ import annotations

from threading import Thread

from dispatcher import Settings
from dispatcher.access import Access

SOON_S = 0.1


def test_threads_that_come_together_get_what_the_first_one_makes() -> None:
    access, made, found = Access(Settings()), [], []

    def slowly() -> str:
        made.append("first")
        second.start()
        second.join(SOON_S)
        return "first"

    def again() -> str:
        made.append("second")
        return "second"

    second = Thread(target=lambda: found.append(access._once("it", again)))
    found.append(access._once("it", slowly))
    second.join()
    assert (made, found) == (["first"], ["first", "first"])
    assert access.celery is access.celery
    access.close()


def test_what_is_made_may_need_something_else_that_is_made() -> None:
    access = Access(Settings())
    assert access._once("outer", lambda: access._once("inner", lambda: "made")) == "made"
    access.close()
