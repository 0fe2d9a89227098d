"""README.md fits two screens, and README.zh.md says the same in Chinese."""

from __future__ import annotations

import re

from support.pages import ROOT, blocks_of

ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh.md"
LINES_OF_TWO_SCREENS = 100
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`[^`\n]+`")
LETTERS = re.compile("[\u4e00-\u9fff]")
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
MOST_EXTRA_CODE = 2
"""Words of the specification that the Chinese page names once more."""


def test_each_fits_two_screens() -> None:
    for page in (ENGLISH, CHINESE):
        assert len(page.read_text("utf-8").splitlines()) <= LINES_OF_TWO_SCREENS


def test_both_have_the_same_headings() -> None:
    english, chinese = (
        HEADING.findall(FENCED.sub("", page.read_text("utf-8"))) for page in (ENGLISH, CHINESE)
    )
    assert [level for level, _ in english] == [level for level, _ in chinese]
    assert all(LETTERS.search(title) for _, title in chinese)


def test_both_have_the_same_commands_and_code() -> None:
    english, chinese = (
        [(block.language, block.text) for block in blocks_of(page)] for page in (ENGLISH, CHINESE)
    )
    assert english == chinese


def test_both_link_to_the_same_pages_in_the_same_order() -> None:
    english, chinese = (LINK.findall(page.read_text("utf-8")) for page in (ENGLISH, CHINESE))
    assert (english[0], chinese[0]) == ("README.zh.md", "README.md")
    assert english[1:] == chinese[1:]


def test_all_code_in_english_sentences_is_in_chinese_ones_too() -> None:
    english, chinese = (
        set(CODE.findall(FENCED.sub("", page.read_text("utf-8")))) for page in (ENGLISH, CHINESE)
    )
    assert english <= chinese
    assert len(chinese - english) <= MOST_EXTRA_CODE


def test_each_paragraph_of_the_chinese_page_is_chinese() -> None:
    text = FENCED.sub("", CHINESE.read_text("utf-8"))
    for paragraph in re.split(r"\n\n", text):
        prose = LINK.sub("]", paragraph).strip()
        if re.search(r"[a-z]{4}", CODE.sub("", prose)) and not prose.startswith(("[English]", "[Apache")):
            assert LETTERS.search(prose), prose
