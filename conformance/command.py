"""`dispatcher conformance URL`"""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 (typer reads the annotations)
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from conformance.junit import junit
from conformance.measure import ProbedPath, checked, measured
from conformance.outages import outage
from conformance.run import run
from conformance.subject import AT_ONCE, Subject
from conformance.table import header, rows
from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.lines import echo
from dispatcher.errors import InvalidSettingsError
from dispatcher.settings.executors import Endpoint, ExecutorClientConfig
from workers.drivers.transport import HttpTransport
from workers.shield import shield

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.report import Finding, Report

__all__ = ["conformance"]


def _command(what: str) -> Any:
    return typer.Option(metavar="COMMAND", help=what, show_default=False)


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
            "in the end: executor, conforms, idempotent_apply, stops_faults, lists_faults, keeps_not_after, "
            "checks (the rows); with --measure-effect: executor, rounds, takes_effect_sec"
        ),
    ] = False,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write it as JUnit XML too.")
    ] = None,
    measure_effect: Annotated[
        bool,
        typer.Option(
            "--measure-effect",
            help="Measure takes_effect_sec with real faults on --probe, and make no checks.",
        ),
    ] = False,
    probe: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A path of the service without other traffic, as its callers reach it. Faults hit it.",
            show_default=False,
        ),
    ] = None,
    probe_host: Annotated[
        str | None, typer.Option(help="Host header of the probe's requests.", show_default=False)
    ] = None,
    max_active_faults: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="How many faults it may have. Others must be refused (429)."),
    ] = None,
    kill: Annotated[str | None, _command("Kills the Executor, as kill -9 does.")] = None,
    start: Annotated[str | None, _command("Starts it again after --kill.")] = None,
    hang: Annotated[str | None, _command("Suspends the Executor, as kill -STOP does.")] = None,
    resume: Annotated[str | None, _command("Has it go on after --hang.")] = None,
    driver: Annotated[str, typer.Option(help="The driver that --measure-effect calls.")] = "faults_api",
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="One of its driver_options. Repeatable.", show_default=False),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often --measure-effect measures.")] = 3,
    within_sec: Annotated[float, typer.Option(min=1, help="How long it waits for an effect.")] = 60.0,
) -> None:
    """Check the Executor at URL against the contract of the faults API.

    Prints a row for each check, as it is made. One that fails has what was expected, what was seen, and what
    to do. One that cannot be made is skipped, with the reason. Exits with 1 if a required check fails.

    Faults are applied to paths without traffic, and are gone in the end. With --probe, real requests must
    meet some of them. With --kill and --start, or --hang and --resume, the Executor is away for 6 seconds.

    With --measure-effect, an abort of 100 % hits the path of --probe several times instead. Prints how long
    it took until it was in force and until it was gone, and the takes_effect_sec to configure.
    """
    times = {"connection_timeout_sec": timeout_sec, "read_timeout_sec": timeout_sec}
    endpoint = {"base_url": url, "token": token, "ca_file": ca_file} | times

    def show(line: str) -> None:
        if not as_json:
            echo(line)

    if measure_effect:
        config = endpoint | {"driver": driver, "driver_options": _options(option or [])}
        target = ProbedPath(service, probe, probe_host, times)
        effect = measured(checked(ExecutorClientConfig, config), target, rounds, within_sec, show)
        if as_json:
            print_json(effect.fields)
        else:
            echo(effect.summary())
        return
    subject = Subject(
        HttpTransport(checked(Endpoint, endpoint), AT_ONCE),
        HttpTransport(checked(Endpoint, endpoint | {"token": None}), AT_ONCE),
        has_token=token is not None,
        service=service,
        prefix=api_prefix.rstrip("/"),
        traffic=None if probe is None else ProbedPath(service, probe, probe_host, times),
        kill=outage(kill, start, ("--kill", "--start")),
        hang=outage(hang, resume, ("--hang", "--resume")),
        max_active_faults=max_active_faults,
    )
    report = _report(subject, url, show)
    _end(report, as_json=as_json, junit_file=junit_file)


def _end(report: Report, *, as_json: bool, junit_file: Path | None) -> NoReturn:
    """Print the report, write the file, and exit."""
    if as_json:
        print_json(report.fields)
    else:
        echo(report.summary())
    if junit_file is not None:
        junit_file.write_bytes(junit(report))
    raise typer.Exit(int(not report.conforms))


def _report(subject: Subject, url: str, show: Callable[[str], None]) -> Report:
    """Make all checks. An Executor without an answer is an error of the call, and breaks no promise."""
    subject.api.call("GET", "/v1/health")
    show(header())

    def show_rows(finding: Finding) -> None:
        for row in rows(finding):
            show(row)

    return shield(lambda interrupted: run(subject, url, show_rows, interrupted))


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
