"""A program loads what it needs and no more: counted in modules, which no busy machine changes."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import typer
from celery import states

import dispatcher
from dispatcher import FaultLostError, FaultPlan, PlanUnknownError, Settings
from dispatcher.access import Access
from dispatcher.cli import OWN, whole_app
from dispatcher.tasks import make_celery, stored_results
from dispatcher.tasks.results import ResultCodec
from workers import commands as of_workers

if TYPE_CHECKING:
    from pathlib import Path

REPORT = (
    "import atexit, json, sys; atexit.register(lambda: print(json.dumps([*sys.modules]), file=sys.stderr))"
)
COMMANDS = """
import atexit, json, os, sys
from dispatcher.cli import main
for line in sys.argv[1:]:
    if os.fork() == 0:
        atexit.register(lambda: print("loaded", json.dumps([line, [*sys.modules]]), file=sys.stderr))
        sys.argv = ["dispatcher", *line.split()]
        main()
    os.wait()
"""
"""Carries out each argument as a command line, in a process of its own, and prints what that has loaded."""

WORKER = (
    f"{REPORT}; import runpy; from celery.apps.worker import Worker; import celery.worker.consumer; "
    "sys.argv += ['worker', '--help']; runpy.run_module('dispatcher.celery_command', run_name='__main__')"
)
NO_REDIS = {"DISPATCHER_REDIS_URL": "redis://127.0.0.1:1"}

CELERY = {"amqp", "billiard", "celery", "kombu"}
HTTP = {"opentelemetry", "redis", "requests", "urllib3"}
PRINTED = {"markdown_it", "pygments", "rich", "yaml"}
TABLES = {"matplotlib", "numpy", "optuna", "pandas", "polars", "pyarrow"}
SERVERS = {"aiohttp", "executor", "fastapi", "flower", "grpc", "prometheus_client", "tornado", "uvicorn"}
NEVER = {"attr", "docutils", "jinja2", "prompt_toolkit", *SERVERS, *TABLES}
NOTHING = {"asyncio", "pydantic", "ssl", *CELERY, *HTTP, *PRINTED}
OFFLINE = NOTHING - {"asyncio", "pydantic", "ssl", "yaml"}

COMMAND_LINES: dict[str, tuple[set[str], int]] = {
    "--help": (NOTHING, 245),
    "--version": (NOTHING, 245),
    "vanish": (NOTHING - {"pydantic"}, 320),
    "plan check -": (OFFLINE, 430),
    "config show": (OFFLINE | {"yaml"}, 415),
    "worker --help": (OFFLINE | {"yaml"}, 425),
    "submit --help": (OFFLINE - {"markdown_it", "pygments", "rich"} | {"yaml"}, 430),
    "status abc": ({"requests", "workers", "yaml", *CELERY}, 715),
    "cancel abc": ({"requests", "workers", "yaml", *CELERY}, 715),
    "breaker show": ({"requests", "rich", "yaml", *CELERY}, 620),
}
"""The packages that each does without, and the number of modules that it loads at most."""


def errors_of(program: str, *arguments: str, **environment: str) -> list[str]:
    """The lines that an interpreter of its own prints to standard error."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment
    )
    return done.stderr.splitlines()


def loaded_by(program: str) -> list[str]:
    """The modules of an interpreter of its own, at its end."""
    modules: list[str] = json.loads(errors_of(program)[-1])
    return modules


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """The modules that each command has loaded at its end."""
    lines = errors_of(COMMANDS, *COMMAND_LINES, **NO_REDIS)
    return dict(json.loads(line.removeprefix("loaded ")) for line in lines if line.startswith("loaded "))


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_imports_what_it_needs_and_no_more(line: str, loaded: dict[str, list[str]]) -> None:
    absent, most = COMMAND_LINES[line]
    assert {name.partition(".")[0] for name in loaded[line]} & (absent | NEVER) == set()
    assert len(loaded[line]) <= most


def test_a_program_that_needs_errors_and_plans_loads_no_client() -> None:
    modules = loaded_by(f"{REPORT}; import dispatcher; dispatcher.ExecutorClientError")
    assert len(modules) <= 90
    modules = loaded_by(f"{REPORT}; from dispatcher import FaultPlan, FaultType")
    assert {name.partition(".")[0] for name in modules} & {"redis", "opentelemetry", *CELERY, *NEVER} == set()


def test_a_client_of_redis_loads_no_celery_before_it_submits() -> None:
    modules = loaded_by(f"{REPORT}; import dispatcher; dispatcher.Dispatcher().close()")
    assert {name.partition(".")[0] for name in modules} & {"requests", "rich", *CELERY, *NEVER} == set()


def test_a_worker_loads_nothing_for_people_or_for_servers() -> None:
    modules = loaded_by(WORKER)
    assert {name.partition(".")[0] for name in modules} & {"conformance", "rich", "typer", *NEVER} == set()
    assert {name for name in modules if name.startswith(("dispatcher.cli", "workers.commands"))} == set()
    assert len(modules) <= 1_000


def test_a_public_name_is_the_same_object_wherever_it_is_imported() -> None:
    for name in dispatcher.__all__:
        found = getattr(dispatcher, name)
        assert getattr(sys.modules[found.__module__], name) is found
    assert set(dispatcher.__all__) <= set(dir(dispatcher))
    assert dispatcher.models.FaultPlan is FaultPlan


def test_all_names_can_be_imported_with_a_star() -> None:
    names: dict[str, Any] = {}
    exec("from dispatcher import *", names)
    assert set(dispatcher.__all__) <= set(names)


def test_an_unknown_name_is_an_error_that_says_so() -> None:
    with pytest.raises(AttributeError, match="module 'dispatcher' has no attribute 'Dispatchr'"):
        getattr(dispatcher, "Dispatchr")  # noqa: B009 (type checkers refuse the attribute, as they should)
    with pytest.raises(ImportError, match="cannot import name 'Dispatchr' from 'dispatcher'"):
        exec("from dispatcher import Dispatchr")


def test_an_object_is_unpickled_in_a_program_that_has_imported_nothing(tmp_path: Path) -> None:
    plan = FaultPlan.model_validate(
        {
            "service": "PaymentService",
            "api": "/pay",
            "fault_type": "abort",
            "abort_http_status": 503,
            "percentage": 1,
            "duration_seconds": 1,
        }
    )
    objects = [plan, FaultLostError("gone"), PlanUnknownError("no such")]
    (tmp_path / "objects").write_bytes(pickle.dumps(objects))
    program = "import pickle, sys; print(repr(pickle.load(open(sys.argv[1], 'rb'))))"
    command = [sys.executable, "-c", program, str(tmp_path / "objects")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr(objects)


def test_the_list_of_commands_shows_the_first_sentence_of_each() -> None:
    commands = typer.main.get_command(whole_app()).commands  # type: ignore[attr-defined]
    listed = OWN | {name.lower(): getattr(of_workers, name) for name in of_workers.__all__}
    assert set(listed) < set(commands)
    for name, each in listed.items():
        text = " ".join(commands[name].help.split())
        assert each.summary == re.split(r"(?<=\.)\s", text, maxsplit=1)[0]


def test_results_are_read_from_where_celerys_backend_stores_them() -> None:
    settings = Settings(key_prefix="other")
    app = make_celery(settings)
    expected = app.backend.get_key_for_task("p-1").decode()
    prefix = stored_results.global_prefix(settings.key_prefix)
    assert stored_results.StoredResults(prefix).key("p-1") == expected
    assert ResultCodec(app).key("p-1") == expected
    assert stored_results.SUCCESS == states.SUCCESS
    assert {stored_results.FAILURE, stored_results.REVOKED} == {states.FAILURE, states.REVOKED}


def test_threads_that_submit_first_at_the_same_time_share_one_publisher() -> None:
    access, together, found = Access(Settings()), threading.Barrier(8), []

    def use() -> None:
        together.wait()
        found.append(access.publisher)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1
    access.close()
