"""Threads that live as long as their worker process."""

from __future__ import annotations

from typing import Any, Protocol

from celery import bootsteps

__all__ = ["Background", "background_step"]


class Background(Protocol):
    """Something that goes on in a thread of its own."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """End."""
        ...


def background_step(background: Background) -> type[bootsteps.StartStopStep]:
    """It as a Celery bootstep, which starts and stops with the worker."""

    class BackgroundStep(bootsteps.StartStopStep):  # type: ignore[misc]  # celery ships no types
        name = f"workers.{type(background).__name__}"
        requires = ("celery.worker.components:Pool",)

        def start(self, worker: Any) -> None:  # noqa: ARG002 (the bootstep's signature)
            background.start()

        def stop(self, worker: Any) -> None:  # noqa: ARG002
            background.stop()

    return BackgroundStep
