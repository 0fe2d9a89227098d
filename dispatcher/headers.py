"""Which requests a plan hits: those that have its headers. What may be asked for, and how it is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator

__all__ = ["MAX_HEADERS", "Headers", "RequestHeaders", "headers_of_lines", "lines_of"]

MAX_HEADERS = 8
NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,64}")
"""A field name in lower case (RFC 9110, section 5.1)."""

VALUE = re.compile(r"[!-~]([ -~]{0,254}[!-~])?")
CREDENTIALS = re.compile(r"(basic|bearer|digest|negotiate) ", re.IGNORECASE)
"""How a value of `Authorization` begins (RFC 9110, section 11.4)."""

SECRET = re.compile(r"authori[sz]|authentic|\bauth\b|cookie|token|secret|passw|credential|api-?key|session")
"""What is in names of headers whose values are secrets."""

OF_THE_CONNECTION = {
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
"""Headers that say how a request is sent, and that proxies change."""

EXAMPLE = 'x-test-run: "42"'
LONGEST_SHOWN = 64


class Headers(Mapping[str, str]):
    """Names of headers with their exact values. Frozen, in the order of the names."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(sorted(values.items()))

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return repr(self._values)


def lines_of(headers: Mapping[str, str]) -> list[str]:
    """Each header as in a request: `x-test-run: 42`."""
    return [f"{name}: {value}" for name, value in headers.items()]


def headers_of_lines(lines: Iterable[str]) -> Headers | None:
    """Headers that are written as in a request, `x-test-run: 42`. None if there are none.

    Raises `ValueError`, whose text shows no value.
    """
    values: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if not colon:
            raise ValueError("must be a name and a value, such as 'x-test-run: 42'")
        if values.setdefault(name, value) != value:
            raise ValueError(f"must have one value for each name, and {name[:LONGEST_SHOWN]!r} has two")
    return _checked(values) if values else None


def _checked(value: object) -> Headers:
    """Raises `ValueError`. Its text shows no value, because that may be a secret."""
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a mapping of names to values, such as {EXAMPLE}")
    if not value:
        raise ValueError("must name a header: leave the field out to hit all requests")
    if len(value) > MAX_HEADERS:
        raise ValueError(f"must be at most {MAX_HEADERS}, not {len(value)}")
    for number, (name, text) in enumerate(value.items(), 1):
        _check_name(number, name)
        _check_value(name, text)
    return Headers(value)


def _check_name(number: int, name: object) -> None:
    if not isinstance(name, str):
        raise ValueError(f"must have names that are text, such as {EXAMPLE}")
    if name.startswith(":"):
        raise ValueError("must not have pseudo headers, such as :path: service and api name the target")
    if NAME.fullmatch(name.lower()) is None:  # a whole line, with a secret in it, may be in its place
        raise ValueError(f"must have names as in RFC 9110, at most 64 long, and name {number} is none")
    shown = repr(name)
    if name != name.lower():
        raise ValueError(f"must have names in lower case: {name.lower()!r}, not {shown}")
    if name in OF_THE_CONNECTION:
        raise ValueError(f"must not have {shown}, which belongs to the connection: try {EXAMPLE}")
    if SECRET.search(name):
        raise ValueError(
            f"must not have {shown}: its value may be a secret, and would be in records and logs; "
            f"mark the test traffic by another header, such as {EXAMPLE}"
        )


def _check_value(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ValueError(f"must have values that are text: put that of {name!r} in quotes")
    if VALUE.fullmatch(value) is None:
        rule = "printable ASCII, 1 to 256 characters, no space at either end"
        raise ValueError(f"must have values of {rule}, and that of {name!r} is none")
    if CREDENTIALS.match(value):
        raise ValueError(f"must not have credentials: the value of {name!r} would be in records and logs")


RequestHeaders = Annotated[
    Mapping[str, str],
    PlainValidator(_checked, json_schema_input_type=dict[str, str]),
    PlainSerializer(dict, return_type=dict[str, str]),
]
"""Headers that a request must have, each with exactly this value."""
