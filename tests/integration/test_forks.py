"""A Dispatcher that was used before a fork works in the children, each with connections of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LOCKS_ARE_HELD = """
pool = dispatcher._ledger._client.connection_pool
held = threading.Event()

def hold():
    with pool._lock, pool._fork_lock, pool._event_dispatcher._lock, dispatcher._access._making:
        held.set()
        over.wait()

threads = [threading.Thread(target=hold)]
"""
OTHERS_ASK = """
held = threading.Event()

def keep_asking():
    while not over.is_set():
        dispatcher.halted()
        held.set()

threads = [threading.Thread(target=keep_asking) for _ in range(6)]
"""
NOTHING_ELSE_HAPPENS = """
held = threading.Event()
held.set()
threads = []
"""
PROGRAM = """
import os, signal, sys, threading
from pydantic import SecretStr
from dispatcher import Dispatcher, FaultPlan, PlanConflictError, Settings

def plan(api):
    fields = {"service": "Shop", "fault_type": "abort", "abort_http_status": 503, "percentage": 100}
    return FaultPlan(api=api, duration_seconds=1, **fields)

def ask(number):
    for turn in range(5):
        name = f"{number}-{turn}"
        assert dispatcher.submit(plan("/" + name), plan_id=name).id == name
        assert dispatcher.handle(name).status().id == name
        try:
            dispatcher.submit(plan("/another"), plan_id="known")
        except PlanConflictError:
            pass
        else:
            raise AssertionError("the answer to another question")

dispatcher = Dispatcher(Settings(redis_url=SecretStr(sys.argv[1])))
dispatcher.submit(plan("/known"), plan_id="known")
over = threading.Event()
MEANWHILE
for thread in threads:
    thread.start()
held.wait()
children = {}
for number in range(8):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            ask(number)
            dispatcher.close()
        except BaseException as error:
            print("child", number, type(error).__name__, error, flush=True)
            os._exit(1)
        os._exit(0)
    children[child] = number
failed = [number for child, number in children.items() if os.waitpid(child, 0)[1]]
over.set()
for thread in threads:
    thread.join()
ask("parent")
dispatcher.close()
print("failed:", failed)
"""


@pytest.mark.parametrize(
    "meanwhile",
    [NOTHING_ELSE_HAPPENS, OTHERS_ASK, LOCKS_ARE_HELD],
    ids=["nothing", "others ask", "locks are held"],
)
def test_children_and_parent_each_get_their_own_answers(meanwhile: str, redis_url: str) -> None:
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c"]
    ran = subprocess.run(
        [*command, PROGRAM.replace("MEANWHILE", meanwhile), redis_url],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("failed: []\n", "")
