"""The pages of the API reference, one for each part of the public names. mkdocstrings fills them in."""

from __future__ import annotations

import inspect

import dispatcher

__all__ = ["api_pages"]

PARTS = {
    "client": (
        "The client",
        "Submits plans, and finds them again.",
        ("client", "handles", "interface", "batches", "history", "submissions", "telemetry"),
    ),
    "plans": ("Plans", "What a Recommender hands over, and what becomes of it.", ("models", "points")),
    "observations": (
        "Observations",
        "What was seen, and how large the effect was.",
        ("observations", "effects"),
    ),
    "errors": ("Exceptions", "All are in `dispatcher`. [Errors](../errors.md) says what to do.", ("errors",)),
    "settings": ("Settings in code", "[Settings](../settings.md) lists each option.", ("settings",)),
}
"""For each page: its title, what it is about, and the modules of `dispatcher` whose names it shows."""

OTHERS = ("others", "Other names", "All are in `dispatcher`.")

EXTENDERS = """\
# Drivers and observers

What a package of your own implements to reach another Executor. [Drivers](../drivers.md) explains it.

::: workers.drivers.base
    options:
      show_root_heading: false
      show_root_toc_entry: false
      members: [Driver, FaultState, FaultStatus, StopOutcome, ListedFault]

::: workers.drivers.transport.HttpTransport

::: workers.drivers.options.read_options

::: workers.observers.base
    options:
      show_root_heading: false
      show_root_toc_entry: false
      members: [Observer, Phase]

::: workers.local.HttpExecutorClient
"""


def api_pages() -> dict[str, str]:
    """The Markdown of each page by its place in the site."""
    names: dict[str, list[str]] = {}
    for name in sorted(dispatcher.__all__, key=_place_in_source):
        names.setdefault(_part_of(name), []).append(name)
    pages = {}
    for part, own in names.items():
        title, about = OTHERS[1:] if part == OTHERS[0] else PARTS[part][:2]
        shown = "\n".join(f"::: dispatcher.{name}\n" for name in own)
        pages[f"api/{part}.md"] = f"# {title}\n\n{about}\n\n{shown}"
    return pages | {"api/extend.md": EXTENDERS}


def _place_in_source(name: str) -> tuple[str, int]:
    """Names of a module are in the order in which it defines them."""
    value = getattr(dispatcher, name)
    return _module_of(name), inspect.getsourcelines(value)[1] if callable(value) else 0


def _module_of(name: str) -> str:
    home: str = getattr(getattr(dispatcher, name), "__module__", "")
    return home.removeprefix("dispatcher.").partition(".")[0]


def _part_of(name: str) -> str:
    module = _module_of(name)
    return next((part for part, (_, _, modules) in PARTS.items() if module in modules), OTHERS[0])
