"""Plans that a worker has taken, while other work occupies all of its threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.eventually import eventually
from support.fleet import Fleet

if TYPE_CHECKING:
    from pathlib import Path


def test_due_plans_that_wait_for_a_busy_workers_threads_go_on_elsewhere(tmp_path: Path) -> None:
    with Fleet(tmp_path, "--concurrency", "2") as fleet:
        running = [fleet.running() for _ in range(3)]
        slow = [fleet.target() for _ in range(2)]
        fleet.stub.hanging.update(slow)
        handles = [fleet.submit(api=api) for api in slow]
        eventually(lambda: {body["api"] for body in fleet.stub.bodies if body} >= set(slow), within_s=20)
        fleet.end(*running)
        leases = [f"{{dispatcher}}:plan:{handle.id}" for handle in running]
        eventually(lambda: all("held" in str(fleet.redis.client.hget(key, "lease")) for key in leases))
        fleet.start("--concurrency", "2")
        assert [handle.result(20).error_rate for handle in running] == [1.0] * 3
        assert not any(handle.status().state.final for handle in handles)
        fleet.stub.let_go.set()
        fleet.end(*handles)
        assert [handle.result(20).error_rate for handle in handles] == [1.0] * 2
