"""Pages, docstrings, comments and messages are plain English, in phrases that every reader understands."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.prose import (
    LONGEST_SENTENCE,
    READERS,
    awkward,
    long_sentences,
    names_in,
    of_a_makefile,
    of_a_module,
    of_a_page,
    of_comments,
    paragraphs,
    refused,
)

ROOT = Path(__file__).parents[2]
ITSELF = {"tests/support/prose.py", "tests/unit/test_prose.py"}
"""They quote what is refused."""

FOLDERS = (
    "dispatcher",
    "workers",
    "executor",
    "conformance",
    "benchmarks",
    "campaigns",
    "examples",
    "docs",
    "config",
    "tests",
)
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
AT_THE_TOP = ("docker-compose.yml", "Dockerfile", "Makefile", ".env.example")
SOURCES = [ROOT / name for name in AT_THE_TOP] + [
    file
    for folder in FOLDERS
    for file in sorted((ROOT / folder).rglob("*"))
    if file.suffix in set(READERS) - {".md"} and str(file.relative_to(ROOT)) not in ITSELF
]
MODULES = [file for file in SOURCES if file.suffix == ".py"]


@pytest.mark.parametrize("folder", ["", *FOLDERS], ids=lambda folder: folder or "the top")
def test_prose_has_no_refused_phrase_and_no_long_sentence(folder: str) -> None:
    files = [file for file in (*PAGES, *SOURCES) if file.is_relative_to(ROOT / folder)]
    files = files if folder else [file for file in files if file.parent == ROOT]
    assert files, f"no file in {folder}"
    texts = {text: file for file in files for text in paragraphs(file)}
    assert [(texts[text], what, text) for what, text in awkward(texts)] == []
    assert [(texts[text], sentence) for text in texts for sentence in long_sentences(text)] == []


def test_names_of_tests_are_plain_english() -> None:
    names = {name for module in MODULES for name in names_in(module.read_text("utf-8"))}
    assert awkward(sorted(names)) == []


@pytest.mark.parametrize(
    ("awkward", "plain"),
    [
        ("Doctor tells what is wrong", "Doctor reports what is wrong"),
        ("Waiters hear of a wiped Redis", "Waiters notice a wiped Redis"),
        ("Any other answer speaks for the Executor", "Any other answer counts as success"),
        (
            "The rules stand in a table",
            "The rules are in a table; this is the standard, as readers understand it",
        ),
        ("The due time lies behind the retry", "The due time is after the retry"),
        ("A worker has the plan in hand", "A worker is carrying out the plan"),
        ("The completer writes decisions down", "The completer stores decisions"),
        ("No worker takes the plan up", "No worker starts the plan; its time is taken from Redis"),
        ("The breaker turns calls away", "The breaker rejects calls"),
        ("The plan is put off", "The plan is deferred, and its offset is 2"),
        ("What came of it", "The outcome"),
        ("It goes by a breaker of its own", "It falls back to a local breaker"),
        ("Port 80 is not to be had", "Port 80 is not available"),
        ("A generator will do", "Any iterable works"),
        ("The next look is in 5 s", "The next check is in 5 s; it looks for faults"),
        ("The fault is to be stopped", "The fault must be stopped; its duration is to be in seconds"),
        ("Somebody must act", "A worker must act"),
        ("Whoever waits learns of it", "Clients that wait learn of it"),
        ("Those who wait get a place", "Plans that wait get a place"),
        ("A pool of one's own", "A custom pool"),
        ("The former is longer", "The duration is longer"),
        ("Where no worker is free, the plan waits", "If no worker is free, the plan waits"),
        ("The state. None where the plan is unknown", "The state. It is where Celery looks for it"),
        ("It waits, for all are busy", "It waits, because all are busy; for each plan, it counts once"),
        ("All answers but for 429", "All answers except 429"),
        ("It changes nothing but the log", "It changes only the log, but not the plan"),
        (
            "The plan's value, else the default",
            "The plan's value, otherwise the default; anything else fails",
        ),
        ("It is stopped, also after Ctrl-C", "It is stopped, even after Ctrl-C"),
        ("The time begins anew", "The time begins again"),
        ("It waits for ever", "It waits forever"),
        ("It is called now and then", "It is called every 0.5 s"),
        ("A key beside the plan", "A key next to the plan; besides, it expires"),
        ("By health checks alone", "Only by health checks; the Executor is left alone"),
        ("It is open for so long", "It is open for this long"),
        ("CELERY_BROKER_URL and its like", "CELERY_BROKER_URL and similar variables"),
        ("It is thereby recognised", "The token identifies it; therefore it is dropped"),
        ("In order to stop, press Ctrl-C", "To stop, press Ctrl-C; the order is fixed"),
        ("Some options, e.g. the port", "Some options, such as the port"),
        ("A threshold is no limit", "There is no limit, and it is no longer open"),
        ("It is the completer which ends it", "The completer ends it"),
    ],
)
def test_an_awkward_phrase_is_found_and_a_plain_one_is_not(awkward: str, plain: str) -> None:
    assert len(refused(awkward)) == 1
    assert refused(plain) == []


def test_a_sentence_of_25_words_is_short_and_one_of_26_is_long() -> None:
    sentence = " ".join(["word"] * LONGEST_SENTENCE)
    assert long_sentences(f"Short. {sentence}. Short.") == []
    assert long_sentences(f"Short. {sentence} more. Short.") == [f"{sentence} more."]


def test_pages_are_read_with_their_tables_and_comments_but_without_code() -> None:
    page = "A page `told`.\n\n- an item\n- [another](told.md)\n\n| a | b |\n\n```\ntold()  # a comment\n```\n"
    assert [text for text in map(str.strip, of_a_page(page)) if text] == [
        "a comment",
        "A page `told`.",
        "- an item",
        "- [another]",
        "a",
        "b",
    ]


def test_modules_are_read_with_comments_docstrings_and_messages_but_without_names() -> None:
    module = '"""A docstring."""\ntold = f"plan {told[\'a b\']} has ended"  # a comment\n'
    assert [text for text in of_a_module(module) if text] == [
        "a comment",
        "A docstring.",
        "plan `x` has ended",
        "a b",
    ]


def test_comments_on_lines_of_their_own_are_one_text_and_those_after_code_are_not() -> None:
    settings = "# One\n# text.\na = 1  # one\nb = 2  # two\n# c = 3  # three\n"
    texts = [" ".join(text.split()) for text in of_comments("#")(settings)]
    assert [text for text in texts if text] == ["One text.", "one", "two", "c = 3 # three"]
    module = "# One\n# text.\na = 1  # one\nb = 2  # two\n"
    assert [text for text in of_a_module(module) if text] == ["One text.", "one", "two"]


def test_a_makefile_is_read_with_what_it_prints() -> None:
    makefile = '# One\n# text.\nhelp:\n\t@echo "make demo  set up"\n\t@echo $(told)\n'
    texts = [" ".join(text.split()) for text in of_a_makefile(makefile)]
    assert [text for text in texts if text] == ["One text.", "make demo set up"]


def test_names_of_tests_are_read_as_words() -> None:
    assert list(names_in("def put_off(): ...\nasync def test_a_plan_ends(): ...\n")) == ["test a plan ends"]
