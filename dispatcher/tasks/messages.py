"""The Celery messages of plans: one for each plan that is submitted, sent as Celery sends a task."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from celery.exceptions import CeleryError
from kombu.exceptions import KombuError

from dispatcher.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

__all__ = ["RUN_PLAN", "Publisher"]

RUN_PLAN = "dispatcher.run_plan"
"""Name of the one task. Its only argument is the id of a submitted plan, which is the task's id too."""

BATCH = 500
"""The most messages that one round trip to the broker carries."""

logger = logging.getLogger(__name__)


class Publisher:
    """Sends the messages of submitted plans over a connection of its own. Threads may share it.

    A message is prepared once; each plan fills in its id. Celery's signals of publishing are sent.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._pattern: Any = None
        self._process = 0
        self._lock = threading.Lock()
        self._connection: Any = None
        self._producer: Any = None

    def send(self, plans: Sequence[tuple[str, str]]) -> bool:
        """Send a message for each plan, given by its id and its title for people. False if that fails.

        Nothing is lost then: the ledger has the plans, and workers begin one without its message within a
        minute. So no error of a broker's package keeps its caller from learning the ids.
        """
        if self._process != os.getpid():
            self._start_anew()
        try:
            try:
                self._publish(plans)
            except Exception:  # noqa: BLE001 (the connection was idle for too long, for example)
                self.close()
                self._publish(plans)
        except Exception as exc:  # noqa: BLE001 (a broker's package raises any)
            self.close()
            why = printable(str(exc)) if self._is_of_the_broker(exc) else type(exc).__name__
            logger.warning("%d plans were submitted without messages, they begin later: %s", len(plans), why)
            return False
        return True

    def close(self) -> None:
        """Close the connection. The next message opens another."""
        with self._lock:
            connection, self._connection = self._connection, None
            self._producer = None
            if connection is not None:
                connection.release()

    def _publish(self, plans: Sequence[tuple[str, str]]) -> None:
        with self._lock:
            if self._producer is None:
                self._connection = self._app.connection_for_write()
                self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)
            producer, amqp, queue = self._producer, self._app.amqp, self._app.conf.task_default_queue
            declare = [
                amqp.queues[queue].bind(producer.channel)
            ]  # otherwise kombu binds a copy for each message
            with producer.batch(max_size=BATCH):
                for plan_id, title in plans:
                    message = self._message(plan_id, title)
                    amqp.send_task_message(
                        producer, RUN_PLAN, message, queue=queue, declare=declare, retry=False
                    )

    def _message(self, plan_id: str, title: str) -> Any:
        """Celery's own message for the task, with this plan's id."""
        if self._pattern is None:
            self._pattern = self._app.amqp.create_task_message("", RUN_PLAN, (), {}, ignore_result=True)
        pattern = self._pattern
        headers = pattern.headers | {"id": plan_id, "root_id": plan_id, "argsrepr": title}
        properties = pattern.properties | {"correlation_id": plan_id}
        return type(pattern)(headers, properties, ((plan_id,), {}, pattern.body[2]), None)

    def _is_of_the_broker(self, error: Exception) -> bool:
        """Whether it is known as a failure of the broker. The text of another may show the broker's URL."""
        try:
            connection = self._connection or self._app.connection_for_write()
            known = (*connection.connection_errors, *connection.channel_errors)
            return isinstance(error, (*known, KombuError, CeleryError, OSError))
        except Exception:  # noqa: BLE001 (without a package of the broker's)
            return False

    def _start_anew(self) -> None:
        """Forget a connection, without a word on it: after a fork, the parent process uses it."""
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._connection = self._producer = None
