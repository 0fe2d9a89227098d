"""Boxes, arrows and words as SVG. Nothing in it is of another host, and every browser draws it alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from xml.sax.saxutils import escape

__all__ = ["COLOURS", "Drawing"]

COLOURS = {
    "ink": "#263238",
    "pale": "#607d8b",
    "teal": "#00796b",
    "green": "#2e7d32",
    "red": "#c62828",
    "orange": "#b25d00",
}
FILLS = {
    "ink": "#eceff1",
    "pale": "#f5f7f8",
    "teal": "#e0f2f1",
    "green": "#e8f5e9",
    "red": "#ffebee",
    "orange": "#fff3e0",
}
Anchor = Literal["start", "middle", "end"]


@dataclass
class Drawing:
    """A picture. Its light background keeps it legible on a dark page."""

    width: int
    height: int
    title: str
    parts: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, width: float, height: float, *, colour: str = "ink") -> None:
        """A rectangle with round corners. `x` and `y` are its upper left one."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="7" fill="{FILLS[colour]}"'
            f' stroke="{COLOURS[colour]}" stroke-width="1.4"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: int = 13,
        colour: str = "ink",
        anchor: Anchor = "middle",
        bold: bool = False,
    ) -> None:
        """A line of words, whose baseline is at `y`."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{COLOURS[colour]}" text-anchor="{anchor}"'
            f"{weight}>{escape(words)}</text>"
        )

    def line(self, *points: tuple[float, float], colour: str = "ink", dashed: bool = False) -> None:
        """Through the points, without an arrow's head."""
        self._path(points, colour, ' stroke-dasharray="4 4"' if dashed else "")

    def arrow(self, *points: tuple[float, float], colour: str = "ink", dashed: bool = False) -> None:
        """Through the points, with a head at the last one."""
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        self._path(points, colour, f'{dashes} marker-end="url(#{colour})"')

    def loop(self, x: float, y: float, colour: str = "pale") -> None:
        """An arrow from the top of a box, at `x` and `y`, back to it."""
        curve = f"M{x - 16:g} {y:g} C{x - 22:g} {y - 34:g} {x + 22:g} {y - 34:g} {x + 16:g} {y - 2:g}"
        self.parts.append(
            f'<path d="{curve}" fill="none" stroke="{COLOURS[colour]}" stroke-width="1.4"'
            f' marker-end="url(#{colour})"/>'
        )

    def svg(self) -> str:
        """The whole file."""
        heads = "".join(
            f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7"'
            f' orient="auto"><path d="M0 0L10 5L0 10z" fill="{colour}"/></marker>'
            for name, colour in COLOURS.items()
        )
        lines = [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}"'
                f' width="{self.width}" height="{self.height}" role="img"'
                " font-family=\"Helvetica, Arial, 'DejaVu Sans', sans-serif\">"
            ),
            f"<title>{escape(self.title)}</title>",
            f"<defs>{heads}</defs>",
            f'<rect width="{self.width}" height="{self.height}" rx="10" fill="#ffffff"/>',
            *self.parts,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"

    def _path(self, points: tuple[tuple[float, float], ...], colour: str, more: str) -> None:
        way = "L".join(f"{x:g} {y:g}" for x, y in points)
        self.parts.append(
            f'<path d="M{way}" fill="none" stroke="{COLOURS[colour]}" stroke-width="1.4"{more}/>'
        )
