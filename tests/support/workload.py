"""A service behind a data plane that applies the policies of a control plane."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from support.service import Service

if TYPE_CHECKING:
    from support.control_plane import ControlPlane
    from support.loopback import Answer


class Workload(Service):
    """Requests whose path, query included, and headers a policy matches get its status at once."""

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__()
        self._plane = plane

    def answer_bytes(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        answer = super().answer_bytes(method, path, headers, body)
        for name in self._plane.there():
            rule = self._plane.policies[name][0]["spec"]["rules"][0]
            wanted = rule["match"].get("headers", [])
            if any(headers.get(each["name"].lower()) != each["exact"] for each in wanted):
                continue
            if re.search(rule["match"]["path"]["regex"], path):
                return rule["fault"]["abort"]["httpStatus"], b"{}", "application/json"
        return answer
