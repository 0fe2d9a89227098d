"""The pictures of the pages, made from tables: `python -m docs.tools.pictures` writes them into docs/."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dispatcher import PlanState
from docs.tools.drawing import Drawing
from docs.tools.transitions import TRANSITIONS, WAITS

if TYPE_CHECKING:
    from docs.tools.transitions import Transition

__all__ = ["PICTURES", "life_of_a_plan", "overview", "states"]

FOLDER = Path(__file__).parents[1]

BOX_WIDTH, BOX_HEIGHT = 142, 50
PLACES = {
    PlanState.QUEUED: (40, 84),
    PlanState.RUNNING: (284, 84),
    PlanState.COMPLETED: (528, 84),
    PlanState.OBSERVED: (772, 84),
    PlanState.EXPIRED: (40, 246),
    PlanState.CANCELLED: (284, 246),
    PlanState.FAILED: (528, 246),
}
ENDS = {
    PlanState.OBSERVED: ("green", "has its observation"),
    PlanState.EXPIRED: ("red", "not begun in time"),
    PlanState.CANCELLED: ("orange", "by a person"),
    PlanState.FAILED: ("red", "with a typed error"),
}
"""The colour of each final state, and what it says of the plan."""


def states() -> str:
    """The states of a plan, and how it gets from one to another."""
    drawing = Drawing(954, 356, "States of a fault plan")
    for transition in TRANSITIONS:
        _draw_transition(drawing, transition)
    for state, (x, y) in PLACES.items():
        colour, below = ENDS.get(state, ("teal", ""))
        drawing.box(x, y, BOX_WIDTH, BOX_HEIGHT, colour=colour)
        middle = x + BOX_WIDTH / 2
        drawing.text(middle, y + (22 if below else 30), state.upper(), bold=True, size=14)
        drawing.text(middle, y + 40, below, size=12)
    for state, why in WAITS.items():
        x, y = PLACES[state]
        drawing.loop(x + BOX_WIDTH / 2, y)
        drawing.text(x + BOX_WIDTH / 2, y - 38, f"waits: {why}", size=12, colour="pale")
    drawing.text(40, 330, "The fault of a plan that must end is stopped first.", size=12, anchor="start")
    drawing.text(
        914, 330, "If no answer says that it is over, its target stays reserved.", size=12, anchor="end"
    )
    return drawing.svg()


def _draw_transition(drawing: Drawing, transition: Transition) -> None:
    (x, y), (end_x, end_y) = PLACES[transition.before], PLACES[transition.after]
    if y == end_y:
        level = y + BOX_HEIGHT / 2
        drawing.arrow((x + BOX_WIDTH, level), (end_x, level), colour="teal")
        drawing.text((x + BOX_WIDTH + end_x) / 2, level - 8, transition.why, size=12, colour="teal")
        return
    order = sorted(
        (each.before for each in TRANSITIONS if each.after is transition.after),
        key=lambda state: PLACES[state][0],
    )
    share = (order.index(transition.before) + 1) / (len(order) + 1)
    downward = sorted(
        (
            each.after
            for each in TRANSITIONS
            if each.before is transition.before and PLACES[each.after][1] > y
        ),
        key=lambda state: PLACES[state][0],
    )
    out = (downward.index(transition.after) + 1) / (len(downward) + 1)
    start = (x + BOX_WIDTH * out, y + BOX_HEIGHT)
    drawing.arrow(start, (end_x + BOX_WIDTH * share, end_y), colour=ENDS[transition.after][0])


class Call(NamedTuple):
    """What one part says to another."""

    sender: str
    receiver: str
    words: str


class Pause(NamedTuple):
    """Time in which nothing happens, and why."""

    words: str


LANES = {
    "Recommender": 90,
    "Redis: ledger": 290,
    "Celery queue": 470,
    "Worker": 650,
    "Executor": 850,
}
LIFE: tuple[Call | Pause, ...] = (
    Call("Recommender", "Redis: ledger", "submit: record, due time"),
    Call("Recommender", "Celery queue", "message with the plan's id"),
    Call("Celery queue", "Worker", "run_plan(plan id)"),
    Call("Worker", "Redis: ledger", "claim: a lease, the target reserved"),
    Call("Worker", "Executor", "apply, with Idempotency-Key"),
    Call("Worker", "Redis: ledger", "RUNNING, due when the fault should be over"),
    Pause("the fault is in force for duration_seconds: no thread, no message, only the due time in Redis"),
    Call("Redis: ledger", "Worker", "due: claimed by any worker"),
    Call("Worker", "Executor", "status, then metrics"),
    Call("Worker", "Redis: ledger", "observation and end, in one call"),
    Call("Redis: ledger", "Recommender", "result"),
)
ROW = 40
TOP = 78


def life_of_a_plan() -> str:
    """Who calls whom while a plan is carried out, from top to bottom."""
    bottom = TOP + ROW * len(LIFE) + 6
    drawing = Drawing(940, bottom + 14, "Life of a fault plan")
    for name, x in LANES.items():
        drawing.line((x, 54), (x, bottom), colour="pale", dashed=True)
        drawing.box(x - 70, 16, 140, 38, colour="teal")
        drawing.text(x, 40, name, bold=True)
    numbers = itertools.count(1)
    for row, step in enumerate(LIFE):
        y = TOP + ROW * row + 18
        if isinstance(step, Pause):
            drawing.box(60, y - 22, 820, 32, colour="orange")
            drawing.text(470, y - 1, step.words, size=12)
            continue
        start, end = LANES[step.sender], LANES[step.receiver]
        drawing.arrow((start, y), (end, y))
        words = f"{next(numbers)}  {step.words}"
        middle, width = (start + end) / 2, 6.3 * len(words)
        drawing.parts.append(
            f'<rect x="{middle - width / 2:g}" y="{y - 19:g}" width="{width:g}" height="15" fill="#ffffff"/>'
        )
        drawing.text(middle, y - 7, words, size=12)
    return drawing.svg()


PARTS = (
    ("Recommender", "proposes faults,", "learns from results", "teal"),
    ("Redis", "ledger of plans,", "queue of messages", "ink"),
    ("Celery workers", "as many as you like;", "one breaker for all", "teal"),
    ("Executor", "injects the fault,", "counts requests", "ink"),
)
WAYS = (("FaultPlan", "RawObservation"), ("lease", "decision"), ("apply, stop", "status, metrics"))
"""What goes from each part to the next one, and what comes back."""


def overview() -> str:
    """The parts, and what goes between them."""
    width, gap = 160, 112
    drawing = Drawing(40 + 4 * width + 3 * gap, 132, "A plan's way to the Executor and back")
    for number, (name, first, second, colour) in enumerate(PARTS):
        x = 20 + number * (width + gap)
        drawing.box(x, 22, width, 88, colour=colour)
        drawing.text(x + width / 2, 50, name, bold=True, size=15)
        drawing.text(x + width / 2, 74, first, size=12)
        drawing.text(x + width / 2, 91, second, size=12)
    for number, (forth, back) in enumerate(WAYS):
        x = 20 + width + number * (width + gap)
        drawing.arrow((x + 3, 54), (x + gap - 3, 54))
        drawing.text(x + gap / 2, 46, forth, size=11)
        drawing.arrow((x + gap - 3, 80), (x + 3, 80))
        drawing.text(x + gap / 2, 96, back, size=11)
    return drawing.svg()


PICTURES = {"states.svg": states, "life-of-a-plan.svg": life_of_a_plan, "overview.svg": overview}


if __name__ == "__main__":
    for file_name, draw in PICTURES.items():
        (FOLDER / file_name).write_text(draw(), "utf-8")
