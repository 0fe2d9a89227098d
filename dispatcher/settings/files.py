"""The configuration file: its values, and the line that each has."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dispatcher.settings.validation import invalid_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["ConfigFile", "config_file"]

CONFIG = "DISPATCHER_CONFIG"


class ConfigFile(NamedTuple):
    """A TOML file."""

    path: Path
    text: str
    values: dict[str, Any]

    def lines(self) -> dict[tuple[str, ...], int]:
        """The line, from 1, in which each table and each value begins."""
        found: dict[tuple[str, ...], int] = {}
        section: list[str] = []
        statement: list[str] = []
        for number, line in enumerate(self.text.split("\n"), 1):
            if not statement and line.lstrip().startswith("["):
                section = []
            statement.append(f"{line}\n")
            values = _parsed("".join(section + statement))
            if values is None:
                continue  # the statement has more lines
            for path in _paths(values):
                found.setdefault(path, number + 1 - len(statement))
            section += statement
            statement = []
        return found


def config_file() -> ConfigFile | None:
    """The file that `DISPATCHER_CONFIG` names, if it names one. Raises `InvalidSettingsError`."""
    named = os.environ.get(CONFIG)
    if not named:
        return None
    try:
        text = Path(named).read_text("utf-8-sig")
        return ConfigFile(Path(named), text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        problem = [named, f"is not valid TOML: {exc}"]
    except UnicodeDecodeError:
        problem = [named, "is not valid TOML: it is not in UTF-8"]
    except RecursionError:
        problem = [named, "has too many brackets inside each other"]
    except ValueError:
        problem = [named, "has a number with too many digits"]
    except FileNotFoundError:
        problem = [CONFIG, f"names {named}, which does not exist"]
    except OSError as exc:
        problem = [CONFIG, f"names {named}, which cannot be read: {exc.strerror}"]
    raise invalid_settings([problem])


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def _paths(values: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        yield (name,)
        if isinstance(value, dict):
            yield from ((name, *path) for path in _paths(value))
