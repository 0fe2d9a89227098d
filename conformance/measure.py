"""`dispatcher conformance URL --measure-effect --probe URL`"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from conformance.effect import Effect, Measurement, Round
from conformance.outside import Response
from conformance.subject import AT_ONCE
from dispatcher.errors import ExecutorClientError, InvalidSettingsError
from dispatcher.models import FaultPlan, FaultType
from dispatcher.settings.executors import Endpoint
from workers.drivers.registry import open_driver
from workers.drivers.transport import HttpTransport
from workers.shield import shield

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from threading import Event

    from dispatcher.settings.executors import ExecutorClientConfig

__all__ = ["ProbedPath", "checked", "measured"]

ABORT_STATUS = 503
NAME = "conformance"

T = TypeVar("T", bound=Endpoint)


class ProbedPath:
    """The service that is probed, and the path of it that faults hit."""

    def __init__(self, service: str, probe: str | None, host: str | None, times: Mapping[str, float]) -> None:
        """Raises `InvalidSettingsError`, and `InvalidPlanError` for a path that no plan may have."""
        if probe is None:
            raise _no_probe("is required with --measure-effect, such as http://payment:8080/api/v1/pay")
        self.service = service
        try:
            parts = urlsplit(probe)
            endpoint = Endpoint.model_validate({"base_url": parts._replace(path="").geturl(), **times})
        except InvalidSettingsError as exc:
            raise _no_probe("; ".join(problem for _, problem in exc.problems)) from exc
        except ValueError as exc:
            raise _no_probe("must be a URL such as http://payment:8080/api/v1/pay") from exc
        self.path = parts.path or "/"
        self.plan = FaultPlan(
            service=service,
            api=self.path,
            fault_type=FaultType.ABORT,
            abort_http_status=ABORT_STATUS,
            percentage=100,
            duration_seconds=1,
        )
        self._headers = {} if host is None else {"Host": host}
        self._transport = HttpTransport(endpoint, AT_ONCE)

    def send(self, suffix: str = "", headers: Mapping[str, str] | None = None) -> Response:
        """One request to the path, with the suffix behind it."""
        begun_s = time.monotonic()
        try:
            answer = self._transport.call(
                "GET", self.path + suffix, headers={**self._headers, **(headers or {})}
            )
        except ExecutorClientError:
            return Response(0, time.monotonic() - begun_s)
        return Response(answer.status, time.monotonic() - begun_s)

    def probe(self) -> int:
        """Status of the answer to one request. 0 if there is none."""
        return self.send().status


def measured(
    config: ExecutorClientConfig,
    path: ProbedPath,
    rounds: int,
    within_s: float,
    report: Callable[[str], None],
) -> Effect:
    """Measure the Executor in this many rounds. `report` gets a line for each.

    Raises `InvalidSettingsError` for a driver or options that do not exist, and `ExecutorClientError`.
    """

    def measure(interrupted: Event) -> Effect:
        measurement = Measurement(opened, path.plan, path.probe, within_s, interrupted)
        done: list[Round] = []
        for number in range(1, rounds + 1):
            done.append(measurement.round())
            report(f"round {number}: {done[-1]}")
        return Effect(config.url, done)

    try:
        opened = open_driver(NAME, config, connections=1)
    except InvalidSettingsError as exc:
        problems = [[field.removeprefix(f"executors.{NAME}."), problem] for field, problem in exc.problems]
        raise InvalidSettingsError("invalid arguments", problems) from exc
    with closing(opened):
        opened.health(opened.longest_call_s)
        return shield(measure)


def checked(kind: type[T], fields: Mapping[str, object]) -> T:
    """The settings of this kind. Raises `InvalidSettingsError`."""
    try:
        return kind.model_validate(fields)
    except InvalidSettingsError as exc:
        raise InvalidSettingsError("invalid arguments", [list(each) for each in exc.problems]) from exc


def _no_probe(problem: str) -> InvalidSettingsError:
    return InvalidSettingsError(f"--probe {problem}", [["--probe", problem]])
