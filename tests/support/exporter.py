"""`dispatcher metrics --serve` as a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests
from prometheus_client.parser import text_string_to_metric_families
from support.command_line import WARM
from support.processes import WarmProcess

if TYPE_CHECKING:
    from pathlib import Path


class Exporter(WarmProcess):
    """On a port of its own choice."""

    def __init__(self, log: Path, redis_url: str) -> None:
        command = [WARM, "metrics", "--serve", "--port", "0"]
        super().__init__(command, log, {"DISPATCHER_REDIS_URL": redis_url})
        self.wait_until(lambda: "/metrics\n" in self.output)
        self.url = self.output.split()[-1]
        self.address = self.url.removeprefix("http://").removesuffix("/metrics")

    def scrape(self) -> dict[str, float]:
        """What it says: `name{label="value"}` without the prefix, and the number."""
        answer = requests.get(self.url, timeout=60)
        assert answer.status_code == 200
        found = {}
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                found[sample.name.removeprefix("dispatcher_") + (f"{{{labels}}}" if labels else "")] = (
                    sample.value
                )
        return found
