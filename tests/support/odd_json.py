"""JSON texts of 5 MB that cost a reader as much as possible, each in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.drivers.answers import MAX_CONTAINERS, MAX_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ODD", "READ", "SIZE"]

SIZE = 5_000_000


def filled(unit: bytes, containers: int = 0) -> bytes:
    """A list of as many units as there is room for. Each has so many lists and objects."""
    count = (SIZE - len("[]")) // (len(unit) + 1)
    if containers:
        count = min(count, (MAX_CONTAINERS - 1) // containers)
    return b"[" + b",".join([unit] * count) + b"]"


def nested(begin: bytes, end: bytes, depth: int) -> bytes:
    """A list of values that are nested so deep."""
    return filled(begin * depth + b"0" + end * depth, depth)


ODD: dict[str, Callable[[], bytes]] = {
    "brackets": lambda: b"[" * SIZE,
    "names without end": lambda: b'{"a":' * (SIZE // 5),
    "empty lists": lambda: filled(b"[]", 1),
    "more empty lists than are allowed": lambda: filled(b"[]"),
    "empty objects": lambda: filled(b"{}", 1),
    "small objects": lambda: filled(b'{"a":0}', 1),
    "lists in lists": lambda: nested(b"[", b"]", 10),
    "deep lists": lambda: nested(b"[", b"]", 190),
    "deep objects": lambda: nested(b'{"":', b"}", 190),
    "more objects in objects than are allowed": lambda: filled(b'{"a":' * 10 + b"0" + b"}" * 10),
    "digits": lambda: b"1" * SIZE,
    "long integers": lambda: filled(b"9" * 4_300),
    "digits behind a point": lambda: b"1." + b"1" * (SIZE - 2),
    "digits before an exponent": lambda: b"1" * (SIZE - 10) + b"e-5000000",
    "single digits": lambda: filled(b"1"),
    "fractions": lambda: filled(b"1.5"),
    "infinities": lambda: filled(b"1e999"),
    "empty texts": lambda: filled(b'""'),
    "escapes": lambda: b'"' + b"\\u0000" * (SIZE // 6) + b'"',
    "escaped quotes": lambda: b'"' + b'\\"' * (SIZE // 2) + b'"',
    "escaped quotes without end": lambda: b'"' + b'\\"' * (SIZE // 2),
    "short names": lambda: b"{" + b",".join(b'"%x":0' % number for number in range(MAX_NAMES)) + b"}",
    "short names, the last one twice": lambda: (
        b"{" + b"".join(b'"%x":0,' % n for n in range(MAX_NAMES - 1)) + b'"0":0}'
    ),
    "blanks": lambda: b" " * SIZE,
    "text that ends badly": lambda: b'"' + b"x" * SIZE + b"\xff",
}
"""Each is made when it is needed: together they take 100 MB."""

READ = {
    "deep lists",
    "deep objects",
    "digits behind a point",
    "empty lists",
    "empty objects",
    "empty texts",
    "escaped quotes",
    "escapes",
    "fractions",
    "lists in lists",
    "long integers",
    "short names",
    "single digits",
    "small objects",
}
"""Those that are read. The others are refused before anything looks at what is in them."""
