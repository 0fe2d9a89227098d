"""`dispatcher up`"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.options import number_option
from dispatcher.cli.terminal import stderr, stdout
from dispatcher.devstack.stack import Stack

__all__ = ["up"]

LOOK_EVERY_SEC = 0.5


def up(
    *,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    traffic_rps: Annotated[
        float, number_option("Requests a second to each target while a fault is on it.", most=10_000)
    ] = 40.0,
    as_json: Annotated[bool, json_option("with addresses, environment, once everything is up")] = False,
) -> None:
    """Start the whole system on this machine, and keep it until Ctrl-C.

    Redis, the reference Executor with Envoy in front of sample services, workers and, if it is installed,
    Flower. All listen on free loopback ports, which are printed.
    """
    stderr.print("starting ...")
    with Stack(workers=workers, traffic_rps=traffic_rps, flower=True) as stack:
        if as_json:
            print_json({"addresses": stack.addresses, "environment": stack.environment})
        else:
            _show(stack)
        while True:
            stack.check()
            time.sleep(LOOK_EVERY_SEC)


def _show(stack: Stack) -> None:
    for name, address in stack.addresses.items():
        stdout.print(f"{name:<9} {address}", soft_wrap=True, highlight=False)
    stdout.print("\nIn another terminal:\n", highlight=False)
    for name, value in stack.environment.items():
        stdout.print(f"export {name}={value}", soft_wrap=True, highlight=False)
    stdout.print("dispatcher watch\n\nCtrl-C ends it.", highlight=False)
