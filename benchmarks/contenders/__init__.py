"""Ways to carry out plans, behind one interface: ours, and what a user would pick instead."""

from __future__ import annotations

from benchmarks.contenders.celery_forms import CeleryBlocking, CeleryRetry
from benchmarks.contenders.dramatiq_pipeline import DramatiqPipeline
from benchmarks.contenders.ours import Ours
from benchmarks.contenders.taskiq_aiohttp import TaskiqAiohttp

__all__ = ["CONTENDERS", "OURS", "RIVAL"]

OURS = Ours()
RIVAL = TaskiqAiohttp()
"""What ratios are against."""

CONTENDERS = [OURS, RIVAL, DramatiqPipeline(), CeleryBlocking(), CeleryRetry()]
