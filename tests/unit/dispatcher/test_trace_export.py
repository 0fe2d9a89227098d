"""Whether a process exports its traces, and what it says where it cannot."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from dispatcher.telemetry.otlp import Seldom, TellingExporter, otlp_provider
from dispatcher.telemetry.trace_export import _collector, export_traces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def is_exporting() -> bool:
    return isinstance(trace.get_tracer_provider(), TracerProvider)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {ENDPOINT: ""},
        {ENDPOINT: "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"},
        {ENDPOINT: "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=["no collector", "an empty one", "disabled", "no traces"],
)
def test_nothing_happens_without_a_request(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    export_traces("any")()
    assert not is_exporting()
    assert not caplog.text


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({ENDPOINT: "collector:4318"}, f"{ENDPOINT} must be a URL such as http://localhost:4318"),
        ({ENDPOINT: "http://user:pass/word@host"}, f"{ENDPOINT} must be a URL such as http://localhost:4318"),
        (
            {ENDPOINT: "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf",
        ),
        (
            {ENDPOINT: "http://127.0.0.1:4318", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"},
            "max_queue_size must be a positive integer.",
        ),
    ],
    ids=["no URL", "a broken one", "another protocol", "an invalid number"],
)
def test_a_wrong_variable_is_one_line_and_stops_nothing(
    environment: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    export_traces("any")()
    assert not is_exporting()
    assert caplog.messages == [f"traces are not exported: {told}"]


def test_a_collector_is_named_only_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "https://user:planted@collector:4318/planted?key=planted")
    assert _collector() == "https://collector:4318"


def test_without_the_sdk_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces")
    monkeypatch.setitem(sys.modules, "dispatcher.telemetry.otlp", None)  # as where an import fails
    export_traces("any")()
    [told] = caplog.messages
    assert told.endswith("pip install 'fault-dispatcher[otel]'")


def test_a_provider_that_is_there_already_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", theirs)
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    export_traces("any")()
    assert trace.get_tracer_provider() is theirs


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, "fault-dispatcher-worker"),
        ({"OTEL_SERVICE_NAME": "mine"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=mine,deployment.environment.name=test"}, "mine"),
    ],
    ids=["our own", "by name", "among attributes"],
)
def test_a_process_is_called_as_the_environment_says(
    environment: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    provider = otlp_provider("fault-dispatcher-worker", "http://127.0.0.1:4318")
    provider.shutdown()
    assert provider.resource.attributes["service.name"] == name
    assert provider.resource.attributes["service.version"]


class FakeExporter(SpanExporter):
    """Gives the answers that a test wants."""

    def __init__(self) -> None:
        self.result = SpanExportResult.SUCCESS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self.result


def test_a_collector_that_is_away_is_reported_once_and_so_is_its_return(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = FakeExporter()
    telling = TellingExporter(fake, "http://collector:4318")
    for result in [SpanExportResult.FAILURE] * 3 + [SpanExportResult.SUCCESS] * 2:
        fake.result = result
        assert telling.export([]) is result
    assert caplog.messages == [
        "the collector at http://collector:4318 takes no traces, and spans are lost",
        "the collector at http://collector:4318 takes traces again",
    ]


def test_a_line_that_comes_seldom_comes_once() -> None:
    line = logging.makeLogRecord({})
    assert [Seldom().filter(line), Seldom().filter(line)] == [True, True]
    seldom, often = Seldom(), Seldom(every_s=0)
    assert [seldom.filter(line) for _ in range(3)] == [True, False, False]
    assert [often.filter(line) for _ in range(3)] == [True, True, True]


@pytest.mark.parametrize(
    ("variable", "named"),
    [
        ("OTEL_EXPORTER_OTLP_HEADERS", f"one of {ENDPOINT}, OTEL_EXPORTER_OTLP_HEADERS"),
        ("OTEL_RESOURCE_ATTRIBUTES", f"one of {ENDPOINT}, OTEL_RESOURCE_ATTRIBUTES"),
        ("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_SCHEDULE_DELAY"),
    ],
)
def test_a_value_that_opentelemetry_ignores_is_not_shown(
    variable: str, named: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setenv(variable, "authorization: Bearer pa55")
    otlp_provider("any", "any").shutdown()
    assert caplog.messages == [f"OpenTelemetry does not accept a value of {named}, and ignores it"]
    assert logging.getLogger("opentelemetry").propagate
