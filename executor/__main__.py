"""`python -m executor`"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sqlite3
import sys
from collections import Counter
from pathlib import Path

from executor.access import refuse_an_open_door, token_of
from executor.control_plane import EnvoyError
from executor.faults import MAX_ACTIVE
from executor.folder import folder_of
from executor.sample_service import SAMPLE_SERVICES
from executor.server import Options, serve

PORTS = range(65_536)


def main() -> int:
    """Run the Executor until a signal ends it; its exit code."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    try:
        options = _options()
        refuse_an_open_door(options.api[0], options.token)
        with folder_of(options.state_dir) as folder:
            asyncio.run(serve(options, folder))
    except (EnvoyError, OSError, TimeoutError, ValueError, sqlite3.Error) as exc:
        message = f"error: the Executor does not start: {exc or 'Envoy took too long'}"
        print(message, file=sys.stderr)  # noqa: T201 (for a person)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m executor",
        description="A reference Executor. It injects faults into the HTTP traffic that goes through its "
        "Envoy: requests to the proxy port, with the service's name as Host. When it is ready it prints one "
        "line of JSON with its addresses. The API asks for the bearer token that is in EXECUTOR_TOKEN or in "
        "--token-file. With neither, it must listen on a loopback address.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address of the API (%(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="0 for any free one (%(default)s)")
    parser.add_argument("--proxy-host", default="127.0.0.1", help="address of Envoy (%(default)s)")
    parser.add_argument("--proxy-port", type=_port, default=10_000, help="0 for any free one (%(default)s)")
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="the bearer token that the API asks for is in this file; one that does not exist is made",
    )
    parser.add_argument(
        "--service",
        metavar="NAME=HOST:PORT",
        type=_service,
        action="append",
        default=[],
        help="a service that faults may hit; may be repeated",
    )
    parser.add_argument(
        "--sample", action="store_true", help="bring sample services, to have something to hit"
    )
    parser.add_argument(
        "--traffic-rps", type=_rate, default=0.0, help="requests a second to each target that has a fault"
    )
    parser.add_argument(
        "--wait-for-answers-sec",
        type=_wait,
        default=10.0,
        help="how long after a fault, and after its delay, requests may still be answered; "
        "those that are not count as unanswered (%(default)s)",
    )
    parser.add_argument(
        "--request-within-sec",
        type=_patience,
        default=10.0,
        help="how long a client of the API may take to send the head of a request, and how long to send its "
        "body; then its connection is closed (%(default)s)",
    )
    parser.add_argument(
        "--max-active-faults",
        type=_count,
        default=MAX_ACTIVE,
        help="how many faults may be active at a time; an apply beyond is answered with 429 (%(default)s)",
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="FOLDER",
        help="keep faults and their figures here: an Executor that is started with the same folder later "
        "knows them, and takes over Envoy, which goes on meanwhile. Without it Envoy ends with the Executor",
    )
    return parser


def _options() -> Options:
    parser = _parser()
    given = parser.parse_args()
    if not (given.service or given.sample):
        parser.error("there is nothing that faults could hit: give --service or --sample")
    names = [name for name, _ in given.service] + [*SAMPLE_SERVICES] * given.sample
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        parser.error(
            f"{', '.join(twice)} is more than one service: give each name once, also next to --sample"
        )
    return Options(
        api=(given.host, given.port),
        proxy=(given.proxy_host, given.proxy_port),
        services=dict(given.service),
        sample=given.sample,
        traffic_rps=given.traffic_rps,
        token=token_of(os.environ.pop("EXECUTOR_TOKEN", ""), given.token_file),  # not for Envoy to inherit
        wait_for_answers_sec=given.wait_for_answers_sec,
        request_within_sec=given.request_within_sec,
        max_active_faults=given.max_active_faults,
        state_dir=given.state_dir,
    )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) not in PORTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _rate(text: str) -> float:
    return _number(text, 10_000, "a rate from 0 to 10000")


def _wait(text: str) -> float:
    return _number(text, 3_600, "a number of seconds from 0 to 3600")


def _patience(text: str) -> float:
    return _number(text, 3_600, "a number of seconds from 0.1 to 3600", least=0.1)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:  # noqa: PLR2004 (the two bounds)
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 100000")
    return int(text)


def _number(text: str, most: float, what: str, least: float = 0.0) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return number


def _service(text: str) -> tuple[str, tuple[str, int]]:
    name, _, address = text.partition("=")
    host, _, port = address.rpartition(":")
    if not (name and host):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=HOST:PORT")
    return name, (host, _port(port))


sys.exit(main())
