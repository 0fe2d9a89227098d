"""JSON texts of 5 MB that cost a reader as much as possible, each in its own way."""

from __future__ import annotations

from workers.drivers.answers import MAX_CONTAINERS, MAX_NAMES

__all__ = ["ODD", "SIZE"]

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


ODD = {
    "brackets": b"[" * SIZE,
    "names without end": b'{"a":' * (SIZE // 5),
    "empty lists": filled(b"[]", 1),
    "more empty lists than are allowed": filled(b"[]"),
    "empty objects": filled(b"{}", 1),
    "small objects": filled(b'{"a":0}', 1),
    "lists in lists": nested(b"[", b"]", 10),
    "deep lists": nested(b"[", b"]", 190),
    "deep objects": nested(b'{"":', b"}", 190),
    "more objects in objects than are allowed": filled(b'{"a":' * 10 + b"0" + b"}" * 10),
    "digits": b"1" * SIZE,
    "long integers": filled(b"9" * 4_300),
    "digits behind a point": b"1." + b"1" * (SIZE - 2),
    "digits before an exponent": b"1" * (SIZE - 10) + b"e-5000000",
    "single digits": filled(b"1"),
    "fractions": filled(b"1.5"),
    "infinities": filled(b"1e999"),
    "empty texts": filled(b'""'),
    "escapes": b'"' + b"\\u0000" * (SIZE // 6) + b'"',
    "escaped quotes": b'"' + b'\\"' * (SIZE // 2) + b'"',
    "escaped quotes without end": b'"' + b'\\"' * (SIZE // 2),
    "short names": b"{" + b",".join(b'"%x":0' % number for number in range(MAX_NAMES)) + b"}",
    "short names, the last one twice": b"{"
    + b"".join(b'"%x":0,' % n for n in range(MAX_NAMES - 1))
    + b'"0":0}',
    "blanks": b" " * SIZE,
    "text that ends badly": b'"' + b"x" * SIZE + b"\xff",
}
