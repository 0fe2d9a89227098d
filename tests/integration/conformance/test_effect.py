"""How long an Executor's faults take: measured with a data plane that learns of all changes late."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import dispatcher
from support.stub_executor import StubExecutor

from conformance.effect import Effect, Round
from dispatcher import FaultUnobservedError

if TYPE_CHECKING:
    import subprocess

LATE_S = 0.4
PATH = "/api/v1/pay"


class LateExecutor(StubExecutor):
    """Its own target: a GET of the path gets 503 if a fault was in force `LATE_S` ago."""

    def __init__(self, *, stops: bool = True, injects: bool = True) -> None:
        super().__init__()
        self.stops, self.injects = stops, injects
        self.windows: dict[str, list[float]] = {}

    def answer(self, method: str, path: str, headers: dict[str, str], body: object) -> tuple[int, object]:
        if path == PATH:
            then = time.monotonic() - LATE_S
            hit = any(begin <= then < end for begin, end in self.windows.values())
            return 503 if hit and self.injects else 200, {}
        if method == "DELETE" and not self.stops:
            return 405, {}
        answered = super().answer(method, path, headers, body)
        for key, ends_s in self.running.items():
            begin, _ = self.windows.setdefault(key, [time.monotonic(), ends_s])
            self.windows[key] = [begin, min(self.windows[key][1], ends_s or time.monotonic())]
        return answered


def measure(executor: LateExecutor, *options: str) -> subprocess.CompletedProcess[str]:
    probe = f"{executor.url}{PATH}"
    return dispatcher(
        "conformance", executor.url, "--measure-effect", "--probe", probe, "--rounds=1", *options
    )


def test_a_data_plane_that_learns_late_is_measured_and_nothing_is_left_behind() -> None:
    with LateExecutor() as executor:
        done = measure(executor, "--json")
        assert all(ends_s < time.monotonic() for ends_s in executor.running.values())
    assert (done.returncode, done.stderr) == (0, "")
    effect = json.loads(done.stdout)
    [measured] = effect["rounds"]
    assert set(measured) == {"in_force_s", "gone_after_stop_s", "gone_after_end_s"}
    assert all(LATE_S - 0.15 <= seconds < 5 for seconds in measured.values()), measured
    assert LATE_S <= effect["takes_effect_sec"] <= 5


def test_a_person_reads_each_round_and_what_to_configure() -> None:
    with LateExecutor(stops=False) as executor:
        done = measure(executor, "--within-sec=2")
    assert (done.returncode, done.stderr) == (0, "")
    first, last = done.stdout.splitlines()
    assert re.fullmatch(
        r"round 1: in force [\d.]+ s after the apply, cannot be stopped, gone [\d.]+ s after its own end",
        first,
    )
    assert re.fullmatch(
        r"effect: in_force=[\d.]+ gone_after_stop=unknown gone_after_end=[\d.]+ takes_effect_sec=[\d.]+", last
    )


def test_a_probe_that_no_fault_meets_ends_with_an_error_and_stops_its_fault() -> None:
    with LateExecutor(injects=False) as executor:
        done = measure(executor, "--within-sec=1")
        assert len(executor.stopped) == 1
    assert (done.returncode, done.stdout) == (FaultUnobservedError.exit_code, "")
    assert "does the probe go through the data plane" in done.stderr


def test_a_probe_of_a_target_that_is_broken_anyway_applies_no_fault() -> None:
    with LateExecutor() as executor:
        executor.windows["older"] = [0.0, float("inf")]
        done = measure(executor)
        assert not executor.applied
    assert done.returncode == FaultUnobservedError.exit_code
    assert "got status 503 before any fault was applied" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--probe", "payment:8080"], "--probe: must be a URL such as"),
        (["--probe", "http://me:pa55@payment/x"], "--probe: must have no credentials"),
        (["--probe", "http://payment/a?b=c"], "--probe: must have no credentials, query or fragment"),
        (["--driver", "polcy_api"], "driver: must be an installed driver"),
        (["--option", "qps=1"], "driver_options.qps: is not an option of the driver faults_api"),
        (["--option", "qps"], "--option: must be NAME=VALUE"),
    ],
    ids=[
        "a probe that is not a URL",
        "a probe with a password",
        "a probe with a query",
        "an unknown driver",
        "an unknown option",
        "an option without a value",
    ],
)
def test_a_wrong_argument_is_named(options: list[str], words: str) -> None:
    with LateExecutor() as executor:
        done = measure(executor, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "pa55" not in done.stderr


def test_a_measurement_needs_a_probe() -> None:
    done = dispatcher("conformance", "http://127.0.0.1:1", "--measure-effect")
    assert done.returncode == 2
    assert "--probe: is required with --measure-effect" in done.stderr


SECONDS = st.floats(0, 600)


@given(st.lists(st.builds(Round, SECONDS, st.none() | SECONDS, SECONDS), min_size=1, max_size=5))
def test_what_to_configure_is_never_less_than_what_was_measured(rounds: list[Round]) -> None:
    effect = Effect("http://executor", rounds)
    longest_s = max(each.longest_s for each in rounds)
    assert longest_s <= effect.takes_effect_sec <= longest_s + 1
    assert effect.takes_effect_sec >= 0.1
