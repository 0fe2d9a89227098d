"""`dispatcher conformance URL`"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from conformance.run import run
from conformance.subject import Subject
from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.terminal import echo
from dispatcher.errors import InvalidSettingsError
from dispatcher.settings.executors import Endpoint
from dispatcher.settings.validation import problems_of
from workers.drivers.transport import HttpTransport
from workers.shield import shield

if TYPE_CHECKING:
    from conformance.report import Finding

__all__ = ["conformance"]

CONNECTIONS = 8


def conformance(
    url: Annotated[str, typer.Argument(metavar="URL", help="The Executor: http://host:port")],
    *,
    token: Annotated[
        str | None, typer.Option(envvar="EXECUTOR_TOKEN", help="Sent as a bearer token.", show_default=False)
    ] = None,
    service: Annotated[str, typer.Option(help="A service that the Executor knows.")] = "PaymentService",
    api_prefix: Annotated[str, typer.Option(help="Faults hit paths below it.")] = "/conformance",
    timeout_sec: Annotated[float, typer.Option(min=0.1, help="What one call may take.")] = 10.0,
    ca_file: Annotated[Path | None, typer.Option(help="Signs the Executor's certificate.")] = None,
    as_json: Annotated[
        bool, json_option("in the end: executor, idempotent_apply, stops_faults, cases (the lines)")
    ] = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as JUnit XML too.")] = None,
) -> None:
    """Check the Executor at URL against the contract of the faults API.

    Faults are applied to paths without traffic, last 3 seconds at most, and are gone in the end. Prints a
    line for each case, with what was expected and what came. Exits with 1 if the contract is broken.
    """
    known = _transport(url, token, timeout_sec, ca_file)
    stranger = _transport(url, None, timeout_sec, ca_file)
    known.call("GET", "/v1/health")  # an Executor that is not there breaks no contract

    def tell(finding: Finding) -> None:
        if not as_json:
            echo(str(finding))

    subject = Subject(known, stranger, token is not None, service, api_prefix.rstrip("/"))
    report = shield(lambda interrupted: run(subject, url, tell, interrupted))
    if as_json:
        print_json(report.fields)
    else:
        echo(report.summary())
    if junit is not None:
        junit.write_bytes(report.as_junit())
    raise typer.Exit(int(report.violated))


def _transport(url: str, token: str | None, timeout_sec: float, ca_file: Path | None) -> HttpTransport:
    times = {"connection_timeout_sec": timeout_sec, "read_timeout_sec": timeout_sec}
    try:
        endpoint = Endpoint.model_validate({"base_url": url, "token": token, "ca_file": ca_file} | times)
    except ValidationError as exc:
        problems = problems_of(exc)
        raise InvalidSettingsError("invalid arguments", problems) from exc
    return HttpTransport(endpoint, CONNECTIONS)
