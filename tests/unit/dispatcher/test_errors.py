"""Errors travel: by pickle, and through Celery's result backend."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import pytest
from pydantic import SecretStr

import dispatcher
from dispatcher import ExecutorClientError, Settings, errors, stored_errors
from dispatcher.cli.error_reference import document
from dispatcher.devstack.child import StackError
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.results import ResultCodec

ARGUMENTS = {
    "InvalidPlanError": ("bad plan", [["percentage", "must be at most 100"]]),
    "InvalidSettingsError": ("bad settings", [["queue", "is required"]]),
    "ExecutorConnectionError": ("no way", "dns"),
    "ExecutorRejectedError": ("refused", 404, "no such service"),
    "ExecutorServerError": ("broken", 503, "not ready"),
    "PlanConflictError": ("in the way", "p2"),
}
EVERY_ERROR = [getattr(errors, name)(*ARGUMENTS.get(name, ("what happened",))) for name in errors.__all__]


@pytest.fixture(scope="module")
def codec() -> ResultCodec:
    return ResultCodec(make_celery(Settings(redis_url=SecretStr("redis://127.0.0.1:1/0"))))


def same(one: BaseException, other: BaseException) -> bool:
    return type(one) is type(other) and one.args == other.args and str(one) == str(other)


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
def test_every_error_survives_pickling(error: ExecutorClientError) -> None:
    assert same(pickle.loads(pickle.dumps(error)), error)


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
def test_every_error_survives_the_result_backend(error: ExecutorClientError, codec: ResultCodec) -> None:
    with pytest.raises(type(error)) as caught:
        codec.decode("p1", codec.encode("p1", error))
    assert same(caught.value, error)


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
def test_every_error_survives_the_ledger(error: ExecutorClientError) -> None:
    assert same(stored_errors.from_json(stored_errors.to_json(error)), error)


class Busy(errors.ExecutorServerError):
    """A driver's own error."""


class Curt(errors.ExecutorTimeoutError):
    """One with another constructor."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"no answer after {seconds} s")


class Mute(errors.FaultLostError):
    """One without a message."""

    def __init__(self) -> None:
        self.args = ()


ODD_ERRORS: dict[str, tuple[ExecutorClientError, ExecutorClientError]] = {
    "a class of a driver": (Busy("busy", 503, "wait"), errors.ExecutorServerError("busy", 503, "wait", None)),
    "another constructor": (Curt(3), errors.ExecutorTimeoutError("no answer after 3 s")),
    "no message": (Mute(), errors.FaultLostError()),
    "an object": (errors.ExecutorServerError("busy", object()), errors.ExecutorServerError("busy")),  # type: ignore[arg-type]
    "another type": (errors.ExecutorServerError("busy", "503"), errors.ExecutorServerError("busy")),  # type: ignore[arg-type]
    "half a character": (ExecutorClientError("no \ud800"), ExecutorClientError("no \\ud800")),
    "no text": (ExecutorClientError(object), ExecutorClientError("<class 'object'>")),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("error", "known"), ODD_ERRORS.values(), ids=ODD_ERRORS)
def test_an_error_that_no_other_process_knows_is_stored_as_one_that_all_know(
    error: ExecutorClientError, known: ExecutorClientError, codec: ResultCodec
) -> None:
    assert same(stored_errors.as_known(error), known)
    assert same(stored_errors.from_json(stored_errors.to_json(error)), known)
    with pytest.raises(type(known)) as caught:
        codec.decode("p1", codec.encode("p1", error))
    assert same(caught.value, known)


def test_every_error_is_in_the_tree_at_the_top() -> None:
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in errors.__all__)


def test_every_error_is_a_public_name() -> None:
    assert set(errors.__all__) <= set(dispatcher.__all__)


def test_every_public_name_exists_and_none_is_left_out() -> None:
    public = {name for name in dir(dispatcher) if hasattr(getattr(dispatcher, name), "__module__")}
    assert {name for name in public if not name.startswith("_")} == set(dispatcher.__all__)


def test_every_error_says_what_it_is_and_whether_a_retry_is_safe() -> None:
    for error in EVERY_ERROR:
        assert type(error).__doc__
        assert isinstance(type(error).retry_safe, bool)


def test_every_error_says_what_to_do_in_words_of_its_own_except_for_wrong_input() -> None:
    advice = Counter([StackError.advice, *(type(error).advice for error in EVERY_ERROR)])
    assert [told for told, count in advice.items() if count > 1] == [errors.InvalidPlanError.advice]
    assert all(told.endswith(".") for told in advice)


def test_exit_codes_distinguish_errors() -> None:
    own = {type(error).__name__: type(error).exit_code for error in EVERY_ERROR}
    assert own.pop("InvalidPlanError") == own.pop("InvalidSettingsError") == 2
    assert len(set(own.values())) == len(own)
    assert all(0 < code < 126 for code in own.values())


def test_timeouts_and_connections_are_builtin_errors_too() -> None:
    assert issubclass(errors.ExecutorTimeoutError, TimeoutError)
    assert issubclass(errors.ResultTimeoutError, TimeoutError)
    assert issubclass(errors.ExecutorConnectionError, ConnectionError)
    assert issubclass(errors.LedgerUnavailableError, ConnectionError)


def test_an_error_of_a_refusal_has_status_and_words() -> None:
    error = errors.ExecutorRejectedError("refused", 404, "no such service")
    assert (error.message, error.status, error.executor_message) == ("refused", 404, "no such service")
    assert errors.ExecutorConnectionError("no way", "dns").reason == "dns"


def test_the_reference_is_made_from_the_classes() -> None:
    reference = Path(__file__).parents[3] / "docs" / "errors.md"
    assert reference.read_text("utf-8") == document(), "run `make docs`"


def test_every_error_has_an_exit_code_of_its_own_except_for_wrong_input() -> None:
    codes = Counter([StackError.exit_code, *(type(error).exit_code for error in EVERY_ERROR)])
    assert {code for code, count in codes.items() if count > 1} == {2}
