"""The fuzzer itself: it finds nothing in the parsers, and something in worse ones."""

from __future__ import annotations

import pytest
from fuzz import responses

from workers.drivers import faults_api


def test_no_answer_is_unexpected() -> None:
    outcomes = responses.run(1_000)
    assert (outcomes.inputs, outcomes.unexpected) == (1_000, 0)
    assert len(outcomes.kinds) >= 8


def test_a_parser_that_lets_an_empty_id_through_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(faults_api, "usable_id", lambda _: True)
    with pytest.raises(AssertionError):
        responses.run(3_000, stops=True)
    assert "unexpected: (" in capsys.readouterr().err
