"""Ends plans without a worker."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from dispatcher import PlanCancelledError, PlanState
from dispatcher.ledger.connection import worker_client
from dispatcher.ledger.leases import Lease, Leases, Named, Settlement
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.results import ResultCodec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatcher import Settings


def end(settings: Settings, plan_ids: Sequence[str]) -> None:
    """End the plans, as workers do that find them cancelled."""
    error, results = PlanCancelledError("enough"), ResultCodec(make_celery(settings))
    with closing(worker_client(settings)) as client:
        leases = Leases(client, settings)
        for lease in leases.fetch([Named(plan_id, 0) for plan_id in plan_ids], 0).named:
            assert isinstance(lease, Lease)
            how = [PlanState.CANCELLED, "", str(error)]
            args: list[str | int] = [
                *how,
                results.key(lease.plan_id),
                results.encode(lease.plan_id, error),
                0,
            ]
            assert leases.settle([Settlement(lease.plan_id, lease.token, "end", args)]) == [(0,)]
