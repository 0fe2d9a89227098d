"""`dispatcher conformance URL`"""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conformance.measure import ProbedPath, checked, measured
from conformance.run import run
from conformance.subject import Subject
from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.lines import echo
from dispatcher.errors import InvalidSettingsError
from dispatcher.settings.executors import Endpoint, ExecutorClientConfig
from workers.drivers.transport import HttpTransport
from workers.shield import shield

if TYPE_CHECKING:
    from conformance.report import Finding

__all__ = ["conformance"]

CONNECTIONS = 8


def conformance(  # noqa: PLR0913 (each is an option of the command line)
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
        bool,
        json_option(
            "in the end: executor, idempotent_apply, stops_faults, lists_faults, keeps_not_after, cases (the "
            "lines); with --measure-effect: executor, rounds, takes_effect_sec"
        ),
    ] = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as JUnit XML too.")] = None,
    measure_effect: Annotated[
        bool,
        typer.Option(
            "--measure-effect", help="Measure takes_effect_sec with real faults on --probe, and try no cases."
        ),
    ] = False,
    probe: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="A path of the service, as its callers reach it.", show_default=False
        ),
    ] = None,
    probe_host: Annotated[
        str | None, typer.Option(help="Host header of the probe's requests.", show_default=False)
    ] = None,
    driver: Annotated[str, typer.Option(help="The driver that --measure-effect calls.")] = "faults_api",
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="One of its driver_options. Repeatable.", show_default=False),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often --measure-effect measures.")] = 3,
    within_sec: Annotated[float, typer.Option(min=1, help="How long it waits for an effect.")] = 60.0,
) -> None:
    """Check the Executor at URL against the contract of the faults API.

    Faults are applied to paths without traffic, last 3 seconds at most, and are gone in the end. Prints a
    line for each case, with what was expected and what came. Exits with 1 if the contract is broken.

    With --measure-effect, an abort of 100 % hits the path of --probe several times instead. Prints how long
    it took until it was in force and until it was gone, and the takes_effect_sec to configure.
    """
    times = {"connection_timeout_sec": timeout_sec, "read_timeout_sec": timeout_sec}
    endpoint = {"base_url": url, "token": token, "ca_file": ca_file} | times

    def tell(finding: Finding | str) -> None:
        if not as_json:
            echo(str(finding))

    if measure_effect:
        config = endpoint | {"driver": driver, "driver_options": _options(option or [])}
        target = ProbedPath(service, probe, probe_host, times)
        effect = measured(checked(ExecutorClientConfig, config), target, rounds, within_sec, tell)
        if as_json:
            print_json(effect.fields)
        else:
            echo(effect.summary())
        return
    known = HttpTransport(checked(Endpoint, endpoint), CONNECTIONS)
    stranger = HttpTransport(checked(Endpoint, endpoint | {"token": None}), CONNECTIONS)
    known.call("GET", "/v1/health")  # an Executor that is not there breaks no contract
    subject = Subject(known, stranger, token is not None, service, api_prefix.rstrip("/"))
    report = shield(lambda interrupted: run(subject, url, tell, interrupted))
    if as_json:
        print_json(report.fields)
    else:
        echo(report.summary())
    if junit is not None:
        junit.write_bytes(report.as_junit())
    raise typer.Exit(int(report.violated))


def _options(given: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` each. A value that is not JSON is text."""
    options: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not (name and equals):
            raise InvalidSettingsError("--option must be NAME=VALUE", [["--option", "must be NAME=VALUE"]])
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options
