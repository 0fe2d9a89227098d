"""What a check is: one promise of an Executor as a value, and how it is verified."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.subject import Subject

__all__ = ["Check", "Checks", "Grade"]


class Grade(StrEnum):
    """What follows if a check fails."""

    REQUIRED = "required"
    """The dispatcher cannot keep its own promises with this Executor."""

    RECOMMENDED = "recommended"
    """The Executor may be without it. The check's advice says what that costs, or what to configure."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise of an Executor."""

    name: str
    """A sentence that is true if the check passes."""

    grade: Grade
    promise: str
    """What is expected, in the terms of the contract."""

    advice: str
    """What to do if the check fails."""

    verify: Callable[[Subject], str]
    """Returns what was seen. Raises `FailedError`, `SkippedError`, or `ExecutorClientError` for no answer."""

    needs: tuple[Check, ...] = ()
    """Checks that must pass first. Otherwise this one is skipped, because it could prove nothing."""


AS_WRITTEN = {
    "executor": "Executor",
    "grpc": "gRPC",
    "json": "JSON",
    "not after": "Not-After",
    "stop all": "stop-all",
}
"""What names of functions cannot hold."""


class Checks(list[Check]):
    """Checks in the order in which they are made."""

    def add(
        self, grade: Grade, promise: str, advice: str, *needs: Check
    ) -> Callable[[Callable[[Subject], str]], Check]:
        """Makes a check of a function and adds it. The function's name is the check's sentence."""

        def make(verify: Callable[[Subject], str]) -> Check:
            check = Check(_sentence(verify.__name__), grade, promise, advice, verify, needs)
            self.append(check)
            return check

        return make


def _sentence(name: str) -> str:
    sentence = name.replace("_", " ")
    for words, as_written in AS_WRITTEN.items():
        sentence = re.sub(rf"\b{words}\b", as_written, sentence)
    return sentence
