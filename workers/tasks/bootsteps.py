"""What starts and stops with a worker."""

from __future__ import annotations

import logging
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import redis
from celery import bootsteps
from celery.apps.worker import install_worker_term_handler
from celery.concurrency.thread import TaskPool
from celery.exceptions import InvalidTaskError
from celery.worker.state import maybe_shutdown
from kombu.exceptions import ContentDisallowed, DecodeError, OperationalError

from dispatcher.errors import InvalidSettingsError
from dispatcher.ledger.connection import advice_on, is_trouble, reply_of
from dispatcher.settings.settings import LogFormat
from dispatcher.telemetry.trace_export import export_traces
from workers.tasks import control
from workers.tasks.parts import WorkerParts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.apps.worker import Worker
    from celery.worker.consumer import Consumer

    from dispatcher.settings.settings import Settings

__all__ = ["bootsteps_of"]

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
LONGEST_PAUSE_OF_REFUSED_S = 30.0
"""Of a consumer that a person must help: the broker refuses what it needs, for example."""

SHUTDOWN_S = 0.5
"""How often a consumer that pauses looks whether its worker is to end."""

QUIET_S = 5.0
"""A consumer that ran for this long without a restart is well again."""

logger = logging.getLogger(__name__)


def bootsteps_of(settings: Settings) -> dict[str, list[type[bootsteps.Step]]]:
    """The bootsteps of a worker and of its consumer, for `app.steps`."""

    class EngineStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
        """Starts and stops the engine and the health monitor around Celery's pool of threads."""

        name = "dispatcher.engine"
        requires = ("celery.worker.components:Pool",)

        def create(self, worker: Worker) -> WorkerParts:
            _refuse_other_pools(worker)
            try:
                return WorkerParts(worker, settings)
            except InvalidSettingsError as exc:
                _end(exc.lines, exc.exit_code)
                raise

        def start(self, worker: Worker) -> None:
            self._flush_traces = export_traces("fault-dispatcher-worker")
            if settings.logs.format is LogFormat.JSON:
                install_worker_term_handler(worker, verbose=False)  # prints only log lines
            control.register(worker.app, self.obj.cancellations, lambda: self.obj.load)
            self.obj.start()

        def stop(self, worker: Worker) -> None:
            logger.info("%s stops, once its steps are done", worker.hostname)
            self.obj.stop()
            self._flush_traces()

        def terminate(self, worker: Worker) -> None:
            """A cold shutdown: leases lapse, and the plans go on elsewhere."""
            logger.info("%s ends at once; its plans go on elsewhere", worker.hostname)

    return {"worker": [EngineStep], "consumer": [ConsumerGuard]}


class ConsumerGuard(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
    """Keeps the consumer alive. A message that kombu cannot read costs a reconnection; these keep a pace."""

    name = "dispatcher.consumer_guard"

    def __init__(self, consumer: Consumer, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._pause_s = 0.0
        self._resumed_at = time.monotonic()
        self._broker_errors = _broker_errors(consumer)
        self._receives = False
        consumer.strategies = Strategies(self._broker_errors)
        consumer.connection_errors = (*consumer.connection_errors, Exception)

    def start(self, consumer: Consumer) -> None:
        """Note whether the consumer gets as far as its event loop."""
        if consumer.hub is None:
            self._begin_to_receive()
        else:
            consumer.hub.call_soon(self._begin_to_receive)

    def stop(self, consumer: Consumer) -> None:  # noqa: ARG002 (the bootstep's signature)
        """Pause before the consumer restarts. Celery stops it while it handles the error, and restarts it at
        once, five times a second while Redis answers with errors."""
        error = sys.exception()
        if not isinstance(error, Exception):  # none, or the SystemExit with which a worker ends
            return
        longest_s = self._longest_pause_s(error)
        if time.monotonic() - self._resumed_at >= QUIET_S:
            self._pause_s = 0.0
        else:
            self._pause_s = min(longest_s, max(FIRST_PAUSE_S, 2 * self._pause_s))
        self._receives = False
        _pause(self._pause_s)
        self._resumed_at = time.monotonic()

    def _longest_pause_s(self, error: BaseException) -> float:
        refusal = _refusal(error)
        if refusal is not None:
            logger.warning("the broker refuses the consumer: %s. %s", reply_of(refusal), advice_on(refusal))
            return LONGEST_PAUSE_OF_REFUSED_S
        if isinstance(error, self._broker_errors):
            return LONGEST_PAUSE_S
        # If it has received messages, the fault of one of them, which is gone.
        return FIRST_PAUSE_S if self._receives else LONGEST_PAUSE_OF_REFUSED_S

    def _begin_to_receive(self) -> None:
        self._receives = True


def _pause(seconds: float) -> None:
    until = time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0:
        maybe_shutdown()
        time.sleep(min(left_s, SHUTDOWN_S))


def _refusal(error: BaseException) -> redis.RedisError | None:
    """Redis's error, if it does not pass by itself. Kombu hides some in an error of its own."""
    cause = error.__cause__ if isinstance(error, OperationalError) else error
    return cause if isinstance(cause, redis.RedisError) and not is_trouble(cause) else None


class Strategies(dict[str, Any]):
    """The consumer's strategies by task name. A message that one of them cannot take is refused.

    Celery would reconnect, put the message back into the queue, and receive it again forever.
    """

    def __init__(self, broker_errors: tuple[type[BaseException], ...]) -> None:
        """`broker_errors` are not the message's fault."""
        super().__init__()
        self._passed_on = (*broker_errors, InvalidTaskError, ContentDisallowed, DecodeError)

    def __getitem__(self, name: Any) -> Any:
        if not isinstance(name, str):
            raise KeyError(name)
        return partial(self._handle, super().__getitem__(name))

    def _handle(self, strategy: Any, message: Any, *args: Any) -> Any:
        try:
            return strategy(message, *args)
        except self._passed_on:
            raise
        except Exception as exc:
            raise InvalidTaskError(f"the message has the wrong shape: {exc!r}") from exc


def _broker_errors(consumer: Consumer) -> tuple[type[BaseException], ...]:
    """What the broker's failures raise. Kombu counts `KeyError` among them, which a message causes, too."""
    errors = (*consumer.connection_errors, *consumer.channel_errors, OperationalError)
    return tuple(error for error in errors if not issubclass(error, LookupError))


def _refuse_other_pools(worker: Worker) -> None:
    """The engine runs in the worker's own process, so that only threads can carry plans out."""
    asked = _pool_asked_for() or "threads"
    if not issubclass(worker.pool_cls, TaskPool):
        asked = worker.pool_cls.__module__.rpartition(".")[2]
    if asked != "threads":
        _end([f"--pool {asked} cannot carry plans out: use --pool threads, and more processes"], 2)
    if worker.autoscale:
        _end(["--autoscale has no effect on threads: set --concurrency, and start more processes"], 2)


def _pool_asked_for() -> str | None:
    """The pool that a person asked for. Celery itself replaces `prefork` by the setting `worker_pool`."""
    context = click.get_current_context(silent=True)
    options = () if context is None else context.command.params
    option = next((each for each in options if each.name == "pool"), None)
    if context is None or option is None or context.info_name not in sys.argv:
        return None
    given = sys.argv[sys.argv.index(context.info_name) + 1 :]
    values, _, _ = context.command.make_parser(context).parse_args(given)
    value, source = option.consume_value(context, values)
    return None if source is click.core.ParameterSource.DEFAULT else str(value)


def _end(lines: Sequence[str], exit_code: int) -> None:
    for line in lines:
        print(f"error: {line}", file=sys.stderr)  # noqa: T201 (for the person who starts the worker)
    sys.exit(exit_code)
