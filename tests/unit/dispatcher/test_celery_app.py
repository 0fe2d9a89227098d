"""The Celery application belongs to the dispatcher: no other program's settings reach it."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from dispatcher import Settings
from dispatcher.tasks.app import make_celery

if TYPE_CHECKING:
    from pathlib import Path

    from celery import Celery

OURS, ANOTHERS = "redis://ours:1/3", "redis://anothers:2/0"
OF_ANOTHER_PROGRAM = {
    "CELERY_BROKER_URL": ANOTHERS,
    "CELERY_BROKER_READ_URL": ANOTHERS,
    "CELERY_BROKER_WRITE_URL": ANOTHERS,
    "CELERY_RESULT_BACKEND": ANOTHERS,
    "CELERY_CONFIG_MODULE": "celeryconfig",
    "CELERY_LOADER": "no.such:Loader",
}


def address(uri: str) -> str:
    """Host, port and database."""
    return uri.removeprefix("redis://").rpartition("@")[2]


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Celery:
    (tmp_path / "celeryconfig.py").write_text(f"broker_url = {ANOTHERS!r}\ntask_always_eager = True\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in OF_ANOTHER_PROGRAM.items():
        monkeypatch.setenv(name, value)
    return make_celery(Settings(redis_url=SecretStr(OURS)))


def test_variables_and_files_of_another_program_change_nothing(app: Celery) -> None:
    with app.producer_or_acquire() as producer:
        addresses = [
            producer.connection.as_uri(),
            app.connection().as_uri(),
            app.connection_for_read().as_uri(),
            app.connection_for_write().as_uri(),
            app.backend.as_uri(),
        ]
    assert list(map(address, addresses)) == ["ours:1/3"] * len(addresses)
    assert app.conf.task_always_eager is False


def test_that_also_holds_once_it_was_pickled(app: Celery) -> None:
    copied = pickle.loads(pickle.dumps(app))
    assert address(copied.connection().as_uri()) == address(copied.backend.as_uri()) == "ours:1/3"


def test_a_connection_elsewhere_can_be_asked_for(app: Celery) -> None:
    for connect in (app.connection, app.connection_for_read, app.connection_for_write):
        assert address(connect("redis://elsewhere:3/0").as_uri()) == "elsewhere:3/0"


def test_each_key_prefix_has_results_queue_commands_and_events_of_its_own() -> None:
    alpha, beta = (make_celery(Settings(key_prefix=name)) for name in ("alpha", "beta"))
    for one, other in (
        (alpha.backend.get_key_for_task("p1"), beta.backend.get_key_for_task("p1")),
        (alpha.conf.task_default_queue, beta.conf.task_default_queue),
        (alpha.control.mailbox.namespace, beta.control.mailbox.namespace),
        (alpha.conf.event_exchange, beta.conf.event_exchange),
    ):
        assert one != other
    assert alpha.backend.get_key_for_task("p1").startswith(b"{alpha}:")
