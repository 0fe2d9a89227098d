"""Other packages are used by their public names, and nothing that they share is changed."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from support.scan import OWN, names_defined, private_names, python_files, shared_state

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "executor" / "xds_pb2.py"
CONTROL = ROOT / "workers" / "tasks" / "control.py"
"""The one exception: it replaces `revoke` and `terminate` as a worker starts, only for our app."""

PRIVATE = {
    "an attribute": "app._pool.release()",
    "an attribute that is set": "consumer._restart_count = 0",
    "a method of a base class": "class T(Task):\n    def run(self):\n        return self._get_exec_options()",
    "a name from a module": "from celery.app.trace import _tasks",
    "a private module": "from celery import _state",
    "a private module's name": "from celery._state import current_app",
    "a whole private module": "import requests._internal_utils",
    "a name as text": "getattr(client, '_pool')",
    "a name as text that is set": "setattr(client, '_pool', None)",
    "a name for operator": "from operator import attrgetter\nget = attrgetter('_pool')",
}

SHARED = {
    "a transport": "from kombu.transport import TRANSPORT_ALIASES\nTRANSPORT_ALIASES['redis'] = 'a:B'",
    "a control command": "@control_command(name='revoke')\ndef revoke(state): ...",
    "an inspect command": "@inspect_command()\ndef about(state): ...",
    "an entry of the panel": "from celery.worker.control import Panel\nPanel.data['revoke'] = print",
    "entries of the panel": "from celery.worker.control import Panel\nPanel.data.update(revoke=print)",
    "a deleted entry": "from celery.worker.control import Panel\ndel Panel.data['revoke']",
    "a serializer": "from kombu.serialization import registry\nregistry.register('json', None, None, None)",
    "a function of a module": "import celery.app.trace\ncelery.app.trace.build_tracer = print",
    "a method of a class": "from requests import Session\nSession.send = print",
    "a method by setattr": "import redis\nsetattr(redis.Redis, 'execute_command', print)",
    "a patch": "from unittest import mock\nmock.patch('celery.app.trace.build_tracer')",
    "the collector": "import gc\ngc.freeze()",
}


@cache
def sources() -> dict[Path, str]:
    """All modules of the product."""
    return {path: path.read_text() for path in python_files(ROOT) if path != GENERATED}


@cache
def own_names() -> set[str]:
    return names_defined(sources().values())


def test_no_private_name_of_another_package_is_used() -> None:
    found = {path: list(private_names(source, own_names())) for path, source in sources().items()}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_nothing_that_others_share_is_changed() -> None:
    found = {path: list(shared_state(source)) for path, source in sources().items()}
    assert [path for path, lines in found.items() if lines] == [CONTROL], found


def test_the_one_exception_is_revoke_terminate_and_a_command_of_our_own() -> None:
    commands = [each for each in shared_state(CONTROL.read_text()) if "_command(" in each]
    assert len(commands) == len(list(shared_state(CONTROL.read_text()))) == 3
    text = " ".join(commands)
    assert all(words in text for words in ("name='revoke'", "name='terminate'", "name=DESCRIBE"))


@pytest.mark.parametrize("source", PRIVATE.values(), ids=PRIVATE)
def test_the_scan_finds_a_private_name(source: str) -> None:
    assert list(private_names(source, own_names())) != []


@pytest.mark.parametrize("source", SHARED.values(), ids=SHARED)
def test_the_scan_finds_a_change_of_what_others_share(source: str) -> None:
    assert list(shared_state(source)) != []


def test_no_class_of_ours_has_a_private_name_of_its_base_in_another_package() -> None:
    hidden = [
        f"{kind.__qualname__}.{name} is {base.__qualname__}.{name}"
        for kind in _classes()
        for base in kind.__mro__[1:]
        if base.__module__.split(".")[0] not in {*OWN, "builtins", "typing", "abc", "enum"}
        for name in vars(kind)
        if name.startswith("_") and not name.startswith("__") and name in vars(base)
        if not name.startswith(("_abc_", "_is_protocol", "_member_", "_value"))
    ]
    assert hidden == []


LOOK = """
import json
import celery.apps.worker, celery.app.backends, celery.concurrency, celery.worker.control
import celery.worker.strategy, celery.signals, kombu.serialization, kombu.transport
from celery.app.task import Task

def look():
    signals = {name: each for name, each in vars(celery.signals).items() if hasattr(each, "receivers")}
    return json.dumps([
        repr(sorted(celery.worker.control.Panel.data.items())),
        sorted(kombu.serialization.registry.name_to_type.items()),
        sorted(kombu.transport.TRANSPORT_ALIASES.items()),
        sorted(celery.app.backends.BACKEND_ALIASES.items()),
        sorted(celery.concurrency.get_available_pool_names()),
        repr(sorted(vars(Task).items(), key=str)),
        repr(celery.worker.strategy.default),
        {name: len(each.receivers or ()) for name, each in signals.items() if name not in ALLOWED},
    ], default=repr)

ALLOWED = {"celeryd_init"}  # a receiver that looks whose worker it is
import dispatcher
before = look()
import dispatcher.worker_app
print(before == look())
"""


def test_importing_the_workers_app_changes_nothing_that_others_share() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("True\n", "")


def _classes() -> list[type]:
    modules = [
        importlib.import_module(each.name)
        for package in ("dispatcher", "workers")
        for each in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")
        if each.name not in {"dispatcher.worker_app", "workers.app"}
    ]
    return [
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__
    ]
