"""The one place with Celery settings, each with its reason."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from celery import Celery
from redis.connection import parse_url

from dispatcher.settings.urls import REDIS_PORT
from dispatcher.tasks.stored_results import global_prefix

if TYPE_CHECKING:
    from dispatcher.settings.settings import Settings

__all__ = ["IsolatedCelery", "make_celery"]

LOADER = "celery.loaders.app:AppLoader"
"""Celery's own default, unless CELERY_LOADER names another one."""


class IsolatedCelery(Celery):  # type: ignore[misc]  # Celery has no types
    """A Celery application whose broker and result backend no environment variable changes.

    Celery prefers CELERY_BROKER_URL, CELERY_RESULT_BACKEND and similar variables to the app's settings.
    Here they belong to other programs.
    """

    def __init__(self, *args: Any, backend: str | None = None, **options: Any) -> None:
        """`backend` is the URL of the result backend."""
        super().__init__(*args, backend=backend, **options)
        self.backend_cls = backend  # comes before the environment, which comes before the argument

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """See Celery."""
        return super().connection_for_read(url or self._broker_url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """See Celery."""
        return super().connection_for_write(url or self._broker_url, **options)

    def connection(self, hostname: str | None = None, *args: Any, **options: Any) -> Any:
        """See Celery."""
        return super().connection(hostname or self._broker_url, *args, **options)

    @property
    def _broker_url(self) -> str:
        return str(self.conf["broker_url"])  # the attribute of this name prefers the environment


def make_celery(settings: Settings) -> Celery:
    """A Celery application for either side. Nothing is sent yet.

    Neither CELERY_* variables nor a `celeryconfig.py` change it. Raises `InvalidSettingsError`.
    """
    settings.check_broker()
    configured = _settings(settings)
    backend = configured["result_backend"]
    app = IsolatedCelery("dispatcher", set_as_current=False, loader=LOADER, backend=backend)
    app.config_from_object(configured)
    return app


def _settings(settings: Settings) -> dict[str, Any]:
    redis_url = settings.redis_url.get_secret_value()
    address, tls = _without_options(redis_url), _tls(redis_url)
    timeout = settings.redis_timeout_sec
    broker = (settings.broker_url or settings.redis_url).get_secret_value()
    over_redis = broker.startswith(("redis://", "rediss://"))
    return {
        "broker_url": ";".join(map(_without_options, broker.split(";"))) if over_redis else broker,
        "result_backend": address,
        # Without these Celery would not check the certificate of a broker, and refuse a result backend.
        "broker_use_ssl": _tls(broker),
        "redis_backend_use_ssl": tls,
        # The prefix separates fleets on one Redis: queue, results, control commands and events.
        "task_default_queue": settings.queue,
        "result_backend_transport_options": {"global_keyprefix": global_prefix(settings.key_prefix)},
        "control_exchange": settings.key_prefix,
        "event_exchange": f"{settings.key_prefix}.events",
        # A message may be lost, because the ledger begins its plan later. Without unacked messages a worker
        # survives a restart of Redis, and nothing waits for a visibility timeout.
        "task_acks_late": False,
        "broker_transport_options": {
            "ack_emulation": False,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
        }
        if over_redis
        else {},
        # A fleet waits for its broker without a limit.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A step that sends its retry waits only briefly: the plan is already in the ledger.
        "task_publish_retry_policy": {"max_retries": 2, "interval_start": 0, "interval_step": 0.1},
        # Plain data only: nothing that a message holds can run code.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_expires": settings.result_expires_sec,
        "result_backend_always_retry": True,
        "redis_socket_timeout": timeout,
        "redis_socket_connect_timeout": timeout,
        # A worker waits until error replies end (READONLY, NOREPLICAS, UNBLOCKED, ...).
        "broker_channel_error_retry": True,
        # Steps wait for HTTP. Threads share the engine, and need no fork.
        "worker_pool": "threads",
        "worker_concurrency": settings.worker.threads,
        # Received plans are claimed together. A worker that is killed delays them by a lease, no longer.
        "worker_prefetch_multiplier": 16,
        # Flower turns events on while it watches.
        "worker_send_task_events": False,
    }


def _without_options(redis_url: str) -> str:
    """The same Redis, user and database in a URL that has no query: Celery would ignore these there."""
    found: dict[str, Any] = dict(parse_url(redis_url))  # type: ignore[no-untyped-call]
    user, password = (quote(str(found.get(name) or ""), safe="") for name in ("username", "password"))
    host = str(found.get("host", "localhost"))
    host = f"[{host}]" if ":" in host else host
    login = f"{user}:{password}@" if user or password else ""
    scheme = redis_url.partition(":")[0]
    return f"{scheme}://{login}{host}:{found.get('port', REDIS_PORT)}/{found.get('db', 0)}"


def _tls(redis_url: str) -> dict[str, Any] | None:
    """The `ssl_...` options in a `rediss://` URL. None if there is no TLS."""
    if not redis_url.startswith("rediss://"):
        return None
    options = {name: value for name, value in parse_url(redis_url).items() if name.startswith("ssl_")}  # type: ignore[no-untyped-call]
    checks = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}
    options["ssl_cert_reqs"] = checks[options.get("ssl_cert_reqs", "required")]
    return options
