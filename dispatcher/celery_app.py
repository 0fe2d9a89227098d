"""The one place with Celery settings, each with its reason."""

from __future__ import annotations

import json
import logging
import ssl
from typing import TYPE_CHECKING, Any

from celery import Celery
from kombu.exceptions import BatchPublishError, OperationalError
from redis.connection import parse_url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dispatcher.ledger import WakeUp
    from dispatcher.settings import Settings

__all__ = ["RUN_PLAN", "make_celery", "publish"]

RUN_PLAN = "dispatcher.run_plan"
"""Name of the one task. Its only argument is the plan id, which is the task id too."""

logger = logging.getLogger(__name__)


def make_celery(settings: Settings) -> Celery:
    """A Celery application for either side. Nothing is sent yet."""
    app = Celery("dispatcher", set_as_current=False)
    app.conf.update(_settings(settings))
    return app


def publish(app: Celery, wake_ups: Iterable[WakeUp]) -> None:
    """Send the wake-ups in one batch.

    A broker that cannot be reached is no error: the plans are in the ledger, and the waker wakes them.
    """
    wake_ups = list(wake_ups)
    if not wake_ups:
        return
    try:
        with app.producer_pool.acquire(block=True) as producer, producer.batch():
            for wake_up in wake_ups:
                message = _message(app, wake_up)
                producer.publish(
                    json.dumps(message.body),
                    routing_key=app.conf.task_default_queue,
                    headers=message.headers,
                    content_type="application/json",
                    content_encoding="utf-8",
                    **message.properties,
                )
    except (OperationalError, BatchPublishError) as exc:
        logger.warning("wake-ups not sent, the waker will send them again: %s", exc)


def _message(app: Celery, wake_up: WakeUp) -> Any:
    """Celery's message for the task, without what `send_task` adds: routes, declarations, a subscription."""
    return app.amqp.as_task_v2(
        wake_up.plan_id,
        RUN_PLAN,
        args=[wake_up.plan_id],
        argsrepr=wake_up.title,  # what Flower shows
        kwargsrepr="{}",
        origin="dispatcher",
        countdown=wake_up.after_s or None,
        ignore_result=True,
    )


def _settings(settings: Settings) -> dict[str, Any]:
    redis_url = settings.redis_url.get_secret_value()
    address, tls = redis_url.partition("?")[0], _tls(redis_url)
    timeout = settings.redis_timeout_sec
    return {
        "broker_url": address,
        "result_backend": address,
        # Without these Celery would not check the certificate of a broker, and refuse a result backend.
        "broker_use_ssl": tls,
        "redis_backend_use_ssl": tls,
        "task_default_queue": settings.queue,
        # A message is only a wake-up; the ledger brings a plan back whose message was lost. Without unacked
        # messages a worker survives a restart of Redis, and nothing waits for a visibility timeout.
        "task_acks_late": False,
        "broker_transport_options": {
            "ack_emulation": False,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
        },
        # A fleet waits for its broker, however long it is away.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A submitter does not: its plan is already in the ledger.
        "task_publish_retry_policy": {"max_retries": 2, "interval_start": 0, "interval_step": 0.1},
        # Plain data only: nothing that a message holds can run code.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        # The last step stores the result itself, together with the plan's end.
        "task_ignore_result": True,
        "result_expires": settings.result_expires_sec,
        "result_backend_always_retry": True,
        "redis_socket_timeout": timeout,
        "redis_socket_connect_timeout": timeout,
        # Steps wait for HTTP. Threads share one connection pool, and need no fork.
        "worker_pool": "threads",
        "worker_concurrency": settings.worker.threads,
        # Waking is cheap; a worker that hoards wake-ups keeps them from idle ones.
        "worker_prefetch_multiplier": 2,
        "worker_disable_rate_limits": True,  # which nobody sets; without them a message is looked at less
        # Flower turns events on while it watches.
        "worker_send_task_events": False,
    }


def _tls(redis_url: str) -> dict[str, Any] | None:
    """The `ssl_...` options in a `rediss://` URL. None where there is no TLS."""
    if not redis_url.startswith("rediss://"):
        return None
    options = {name: value for name, value in parse_url(redis_url).items() if name.startswith("ssl_")}  # type: ignore[no-untyped-call]
    checks = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}
    options["ssl_cert_reqs"] = checks[options.get("ssl_cert_reqs", "required")]
    return options
