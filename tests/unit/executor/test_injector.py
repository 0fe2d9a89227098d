"""The injector, with an Envoy that answers when a test wants it to."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest
from support.fake_plane import FakeClock, FakeControl, FakeEnvoy, FullDisk

from executor.arrivals import CUT, GIVEN_UP_AFTER, LOGGED_WITHIN_S
from executor.contract import FaultApply, FaultConfig
from executor.control_plane import TTL_S, EnvoyError, RefusedError
from executor.faults import ConflictError, Fault, FaultRegistry, TooLateError
from executor.injector import Injector
from executor.routes import RouteTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from datetime import datetime
    from pathlib import Path

ARRIVED = {"chosen": True, "arrived_at": "1.5", "start_time": "-", "method": "GET", "path": "/a"}
SOON_S = 3.0
"""Less than the injector waits for an Envoy that does not answer."""


def request(api: str = "/a", seconds: int = 60) -> FaultApply:
    return FaultApply(
        service="S",
        api=api,
        fault_type="abort",
        percentage=100,
        duration_seconds=seconds,
        fault_config=FaultConfig(http_status=503),
    )


class Plane:
    """One Executor after the other, with the same folder and the same Envoy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.control, self.envoy, self.clock = FakeControl(), FakeEnvoy(folder), FakeClock()

    @asynccontextmanager
    async def executor(self, *, killed: bool = False) -> AsyncIterator[Injector]:
        """`killed`: it keeps nothing at its end."""
        self.store = FullDisk(self.folder / "faults.sqlite3")
        injector = Injector(
            envoy=cast("Any", self.envoy),
            control=cast("Any", self.control),
            table=RouteTable(["S"]),
            faults=FaultRegistry(),
            store=self.store,
            clock=cast("Any", self.clock),
            wait_for_answers=timedelta(),
        )
        await injector.start(adopted=self.envoy.alive)
        tasks = [asyncio.create_task(injector.run()), asyncio.create_task(injector.watch())]
        try:
            yield injector
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            self.store.full = killed
            await injector.close()
            self.store.close()

    async def pass_(self, seconds: int, injector: Injector) -> None:
        """The time passes, and the injector notices it in time."""
        for second in range(seconds):
            self.clock.pass_(1)
            await injector.apply(request(f"/{self.clock.steady_s()}/{second}"), None)


def carry_out(folder: Path, scenario: Callable[[Plane], Coroutine[Any, Any, None]]) -> None:
    async def within_time() -> None:
        async with asyncio.timeout(30):
            await scenario(Plane(folder))

    asyncio.run(within_time())


async def soon(work: asyncio.Task[Any]) -> Any:
    async with asyncio.timeout(SOON_S):
        return await work


def applying(injector: Injector, *given: Any) -> asyncio.Task[Fault]:
    return asyncio.create_task(injector.apply(*given))


def test_applies_that_come_together_are_one_change(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            faults = await asyncio.gather(*(injector.apply(request(f"/{n}"), None) for n in range(50)))
            assert plane.control.on == {fault.apply_id for fault in faults}
            assert plane.control.changes <= 2

    carry_out(tmp_path, scenario)


def test_the_same_apply_while_its_fault_is_being_begun_is_the_same_fault(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            plane.control.hold()
            first = applying(injector, request(), "k1")
            await plane.control.asked.wait()
            second = applying(injector, request(), "k1")
            with pytest.raises(ConflictError):
                await injector.apply(request(), "k2")
            plane.control.release()
            assert await first is await second
            assert len(plane.control.on) == 1

    carry_out(tmp_path, scenario)


def test_all_that_wait_for_a_fault_that_does_not_begin_get_the_error_and_the_next_apply_begins_one(
    tmp_path: Path,
) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            plane.control.hold()
            both = [applying(injector, request(), "k1") for _ in range(2)]
            await plane.control.asked.wait()
            plane.control.give_up("Envoy does not answer")
            for each in both:
                with pytest.raises(EnvoyError, match="does not answer"):
                    await soon(each)
            fault = await injector.apply(request(), "k1")
            assert plane.control.on == {fault.apply_id}

    carry_out(tmp_path, scenario)


def test_a_fault_that_envoy_refuses_does_not_keep_others_from_beginning(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        plane.control.refuses = "/bad"
        async with plane.executor() as injector:
            paths = ["/a", "/bad", "/b"]
            good, bad, other = await asyncio.gather(
                *(injector.apply(request(path), None) for path in paths), return_exceptions=True
            )
            assert isinstance(bad, RefusedError)
            assert isinstance(good, Fault)
            assert isinstance(other, Fault)
            assert plane.control.on == {good.apply_id, other.apply_id}

    carry_out(tmp_path, scenario)


def test_a_stop_of_all_faults_ends_one_that_is_being_begun(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            plane.control.hold()
            begin = applying(injector, request(), None)
            await plane.control.asked.wait()
            stop = asyncio.create_task(injector.end_all())
            await asyncio.sleep(0)
            plane.control.release()
            assert await stop == [await begin]
            assert plane.control.on == set()

    carry_out(tmp_path, scenario)


def test_a_stop_of_all_faults_does_not_wait_for_one_that_does_not_begin(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            plane.control.hold()
            begin = applying(injector, request(), None)
            await plane.control.asked.wait()
            stop = asyncio.create_task(injector.end_all())
            await asyncio.sleep(0)
            plane.control.give_up("Envoy does not answer")
            assert await soon(stop) == []
            with pytest.raises(EnvoyError):
                await begin

    carry_out(tmp_path, scenario)


def test_an_envoy_that_dies_during_a_change_is_started_again_at_once(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            before = await injector.apply(request("/before"), None)
            plane.control.hold()
            begin = applying(injector, request(), None)
            await plane.control.asked.wait()
            plane.envoy.alive = False
            with pytest.raises(EnvoyError, match="Envoy has ended"):
                await soon(begin)
            fault = await soon(applying(injector, request(), None))
            assert plane.envoy.starts == 2
            assert "Envoy ended by itself" in before.error
            assert plane.control.on == {fault.apply_id}

    carry_out(tmp_path, scenario)


def test_an_apply_while_envoy_starts_again_waits_for_it(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            plane.envoy.may_start.clear()
            plane.envoy.starting.clear()
            plane.envoy.alive = False
            await plane.envoy.starting.wait()
            begin = applying(injector, request(), None)
            await asyncio.sleep(0)
            plane.envoy.may_start.set()
            fault = await soon(begin)
            assert plane.control.on == {fault.apply_id}

    carry_out(tmp_path, scenario)


def test_an_executor_may_be_stopped_while_envoy_starts_again(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            fault = await injector.apply(request(), None)
            plane.envoy.may_start.clear()
            plane.envoy.starting.clear()
            plane.envoy.alive = False
            await plane.envoy.starting.wait()
            assert await soon(asyncio.create_task(injector.end_all())) == []
            assert not fault.active

    carry_out(tmp_path, scenario)


def test_a_fault_does_not_last_longer_because_the_clock_was_set_back(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            fault = await injector.apply(request(seconds=5), None)
            plane.clock.set_by(-3600)
            await plane.pass_(6, injector)
            assert fault.apply_id not in plane.control.on
            assert (fault.error, fault.doubt) == ("", "")
            assert fault.end_time is not None
            assert 5 <= (fault.end_time - fault.start_time).total_seconds() < 5 + SOON_S

    carry_out(tmp_path, scenario)


def test_a_fault_neither_ends_nor_lapses_because_the_clock_was_set_forward(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            fault = await injector.apply(request(), None)
            plane.clock.set_by(3600)
            await plane.pass_(1, injector)
            assert fault.active
            assert fault.apply_id in plane.control.on

    carry_out(tmp_path, scenario)


def test_faults_that_were_not_renewed_in_time_do_not_come_back(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            fault = await injector.apply(request(), None)
            plane.clock.pass_(TTL_S)
            plane.control.drop()
            other = await injector.apply(request("/other"), None)
            assert "lapsed after" in fault.error
            assert plane.control.were_on[-1] == {other.apply_id}
            assert not any(fault.apply_id in on for on in plane.control.were_on), "not for a moment"

    carry_out(tmp_path, scenario)


@pytest.mark.parametrize(
    "set_by_s",
    [pytest.param(0, id="the clock is right"), pytest.param(-60, id="the clock is set back meanwhile")],
)
def test_a_fault_that_began_too_late_is_taken_away_and_refused(tmp_path: Path, set_by_s: int) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor(killed=True) as injector:
            plane.control.meanwhile = [lambda: plane.clock.pass_(2), lambda: plane.clock.set_by(set_by_s)]
            with pytest.raises(TooLateError):
                await injector.apply(request(), "k1", plane.clock.now() + timedelta(seconds=1))
            assert plane.control.on == set()
        async with plane.executor() as injector:
            fault = await injector.apply(request(), "k1")
            assert fault.active, "the refused fault was not kept"

    carry_out(tmp_path, scenario)


@pytest.mark.parametrize(
    ("away_s", "goes_on"),
    [
        pytest.param(1.0, True, id="before Envoy drops them"),
        pytest.param(TTL_S - 0.2, False, id="just before Envoy drops them"),
        pytest.param(60.0, False, id="after Envoy has dropped them"),
    ],
)
def test_faults_go_on_if_the_executor_is_there_again(tmp_path: Path, away_s: float, *, goes_on: bool) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor(killed=True) as injector:
            apply_id = (await injector.apply(request(), "k1")).apply_id
        plane.clock.pass_(away_s)
        async with plane.executor() as injector:
            fault = injector.find(apply_id)
            assert fault is not None
            assert fault.doubt
            assert fault.active == goes_on
            assert plane.control.on == ({apply_id} if goes_on else set())
            assert bool(fault.error) != goes_on
            assert await injector.apply(request(), "k1") is fault
            assert lasted_s(fault, plane.clock.now()) <= TTL_S + SOON_S

    carry_out(tmp_path, scenario)


def lasted_s(fault: Fault, now: datetime) -> float:
    return ((fault.end_time or now) - fault.start_time).total_seconds()


def test_no_fault_begins_while_nothing_can_be_kept_and_others_go_on_and_end(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            one, other = [await injector.apply(request(path), None) for path in ("/one", "/other")]
            plane.store.full = True
            with pytest.raises(EnvoyError, match="cannot keep its state: database or disk is full"):
                await injector.apply(request(), "k1")
            assert plane.control.on == {one.apply_id, other.apply_id}
            await injector.end(one)
            assert plane.control.on == {other.apply_id}
            assert all("requests may be missing" in fault.doubt for fault in (one, other))
            plane.store.full = False
            fault = await injector.apply(request(), "k1")
            assert plane.control.on == {other.apply_id, fault.apply_id}
            assert not fault.doubt

    carry_out(tmp_path, scenario)


def test_a_fault_that_has_begun_is_known_although_that_cannot_be_kept(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            plane.control.meanwhile = [lambda: setattr(plane.store, "full", True)]
            fault = await injector.apply(request(), "k1")
            assert injector.find(fault.apply_id) is fault
            assert await injector.apply(request(), "k1") is fault
            await injector.end(fault)
            assert plane.control.on == set()

    carry_out(tmp_path, scenario)


def test_a_fault_that_was_stopped_does_not_come_back_after_a_restart(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor(killed=True) as injector:
            apply_id = (await injector.apply(request(), None)).apply_id
            stop = asyncio.create_task(injector.end_all())
            begin = applying(injector, request("/other"), None)
            await stop
            await begin
        async with plane.executor() as injector:
            fault = injector.find(apply_id)
            assert fault is not None
            assert not fault.active
            assert apply_id not in plane.control.on

    carry_out(tmp_path, scenario)


def test_a_log_that_was_cut_before_it_was_ever_read_leaves_a_doubt(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        plane.envoy.cut_marks = {1}
        async with plane.executor() as injector:
            fault = await injector.apply(request(), None)
            await plane.pass_(math.ceil(LOGGED_WITHIN_S) + 1, injector)
            await injector.end(fault)
            assert (fault.doubt, fault.arrivals_known) == (CUT, True)
            later = await injector.apply(request("/later"), None)
            await injector.end(later)
            assert (later.doubt, later.arrivals_known) == ("", True)

    carry_out(tmp_path, scenario)


def test_what_envoy_could_not_write_to_its_log_leaves_a_doubt_about_the_faults_of_that_time(
    tmp_path: Path,
) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            fault, other = [await injector.apply(request(path), None) for path in ("/one", "/other")]
            plane.envoy.lost += 1
            await injector.end(fault)
            assert (fault.doubt, other.doubt, fault.arrivals_known) == (CUT, CUT, True)
            later = await injector.apply(request("/later"), None)
            await injector.end(later)
            assert (later.doubt, later.arrivals_known) == ("", True)

    carry_out(tmp_path, scenario)


def test_what_an_envoy_that_was_started_again_could_not_write_leaves_a_doubt_too(tmp_path: Path) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            plane.envoy.lost = 2
            await injector.end(await injector.apply(request(), None))
            plane.envoy.starting.clear()
            plane.envoy.alive = plane.envoy.reachable = False
            await plane.envoy.starting.wait()
            fault = await injector.apply(request("/later"), None)
            plane.envoy.reachable = True
            plane.envoy.lost = 1  # each one counts from 0
            await injector.end(fault)
            assert (fault.doubt, fault.arrivals_known) == (CUT, True)

    carry_out(tmp_path, scenario)


@pytest.mark.parametrize("removed", [True, False], ids=["its log is removed", "it records nothing"])
def test_a_fault_is_over_with_a_doubt_although_its_requests_cannot_be_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, removed: bool
) -> None:
    async def scenario(plane: Plane) -> None:
        async with plane.executor() as injector:
            fault = await injector.apply(request(), None)
            plane.envoy.log(kind="DownstreamStart", stream="1", fault_id=fault.apply_id, **ARRIVED)
            assert injector.find(fault.apply_id) is fault
            plane.envoy.reachable = False
            if removed:
                plane.envoy.files.access_log.unlink()
            await injector.end(fault)
            assert not fault.over(plane.clock.now())
            plane.clock.pass_(GIVEN_UP_AFTER.total_seconds() + 1)
            async with asyncio.timeout(SOON_S):
                while not await injector.settle(fault):
                    pass
            assert (fault.doubt, fault.tally.requests, fault.tally.unanswered) == (CUT, 1, 1)
            assert fault.over(plane.clock.now())

    carry_out(tmp_path, scenario)
    assert sum("Envoy is in trouble" in line for line in caplog.messages) <= 1
