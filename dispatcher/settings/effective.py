"""Each setting as it is in force: its value, with secrets hidden, and where it is from."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, JsonValue, SecretStr, TypeAdapter

from dispatcher.settings.urls import HIDDEN, shown_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatcher.settings.settings import Settings
    from dispatcher.settings.sources import Source, Sources

__all__ = ["Effective", "effective"]

BARE = re.compile(r"[A-Za-z0-9_-]+")
URLS = {"redis_url", "broker_url"}
"""Secrets that are shown without user, password and query."""

WITH_A_QUERY = {"path"}
OPTIONS = "driver_options"
"""A driver of another package may have any, and a text may be a secret."""


class Effective(NamedTuple):
    """One setting."""

    path: tuple[str, ...]
    value: JsonValue
    """What JSON can say: None if the setting is absent."""

    hidden: bool
    """Whether a secret was taken out of the value."""

    source: Source

    @property
    def name(self) -> str:
        """As in a TOML file: `services.shop.apis."/users/{id}".path`."""
        return ".".join(each if BARE.fullmatch(each) else json.dumps(each) for each in self.path)


def effective(settings: Settings, sources: Sources) -> Iterator[Effective]:
    """Each setting, in the order of `config/default.toml`. An empty section is a setting, too."""
    for path, value in _leaves((), settings):
        shown = _shown(path, value)
        yield Effective(path, shown, shown != _plain(value), sources.of(path))


def _leaves(path: tuple[str, ...], value: object) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, BaseModel):
        inside: dict[str, Any] = {name: getattr(value, name) for name in type(value).model_fields}
    elif isinstance(value, dict):
        inside = {str(name): each for name, each in value.items()}
    else:
        inside = {}
    if not inside:
        yield path, value
    for name, each in inside.items():
        yield from _leaves((*path, name), each)


def _shown(path: tuple[str, ...], value: object) -> JsonValue:
    plain = _plain(value)
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        return ";".join(_shown_urls(path[-1], secret)) if path[-1] in URLS else HIDDEN
    if OPTIONS in path[:-1] and not isinstance(plain, bool | int | float | None):
        return HIDDEN
    if path[-1] in WITH_A_QUERY and isinstance(plain, str) and "?" in plain:
        return f"{plain.partition('?')[0]}?{HIDDEN}"
    return plain


def _shown_urls(name: str, secret: str) -> list[str]:
    """Several URLs of brokers have `;` between them."""
    return [shown_url(url) for url in (secret.split(";") if name == "broker_url" else [secret])]


def _plain(value: object) -> JsonValue:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    plain: JsonValue = TypeAdapter(Any).dump_python(value, mode="json")
    return plain
