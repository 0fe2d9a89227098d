"""The pages of the API reference, one for each part of the public names. mkdocstrings fills them in."""

from __future__ import annotations

import dispatcher

__all__ = ["api_pages"]

PARTS = {
    "client": (
        "The client",
        "Submits plans, and finds them again.",
        ("client", "handles", "interface", "batches"),
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
    options: {show_root_heading: false, members: [Driver, FaultState, FaultStatus, StopOutcome, ListedFault]}

::: workers.drivers.transport.HttpTransport

::: workers.drivers.options.read_options

::: workers.observers.base
    options: {show_root_heading: false, members: [Observer, Phase]}

::: workers.local.HttpExecutorClient
"""


def api_pages() -> dict[str, str]:
    """The Markdown of each page by its place in the site."""
    names: dict[str, list[str]] = {}
    for name in dispatcher.__all__:
        names.setdefault(_part_of(name), []).append(name)
    pages = {}
    for part, own in names.items():
        title, about = OTHERS[1:] if part == OTHERS[0] else PARTS[part][:2]
        shown = "\n".join(f"::: dispatcher.{name}\n" for name in own)
        pages[f"api/{part}.md"] = f"# {title}\n\n{about}\n\n{shown}"
    return pages | {"api/extend.md": EXTENDERS}


def _part_of(name: str) -> str:
    home = getattr(getattr(dispatcher, name), "__module__", "")
    module = home.removeprefix("dispatcher.").partition(".")[0]
    return next((part for part, (_, _, modules) in PARTS.items() if module in modules), OTHERS[0])
