"""Queries for Prometheus, with the names of a plan filled in so that none can break out of its string."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["escaped", "escaped_for_a_pattern", "filled"]

PLACEHOLDER = re.compile(r"\{(service|api|service_regex|api_regex|seconds)\}")
ENDS_A_STRING = re.compile(r"[\\\"'`\x00-\x1f\x7f]")
MEANS_MORE = re.compile(r"[\\.+*?()|\[\]{}^$]")
"""What Go's `regexp.QuoteMeta` escapes."""


def filled(query: str, service: str, api: str, seconds: int) -> str:
    """The query for this target and window. Values are filled in once: a placeholder in one remains text."""
    values: Mapping[str, str] = {
        "service": escaped(service),
        "api": escaped(api),
        "service_regex": escaped_for_a_pattern(service),
        "api_regex": escaped_for_a_pattern(api),
        "seconds": str(seconds),
    }
    return PLACEHOLDER.sub(lambda found: values[found[1]], query)


def escaped(value: str) -> str:
    r"""For a string in single or double quotes. Both read `\x22` as a quote; a string in single quotes
    does not read `\"`."""
    return ENDS_A_STRING.sub(lambda found: f"\\x{ord(found[0]):02x}", value)


def escaped_for_a_pattern(value: str) -> str:
    """For a string that is a regular expression (RE2), which then matches only `value`."""
    return escaped(MEANS_MORE.sub(lambda found: f"\\{found[0]}", value))
