"""Clients and breakers belong to their process: a copy is the same one, and a pickle is refused."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from dispatcher import Dispatcher, InvalidSettingsError
from dispatcher.specification import CircuitBreaker, HttpExecutorClient

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("make", [Dispatcher, HttpExecutorClient, CircuitBreaker])
def test_a_copy_is_the_same_and_a_pickle_is_refused_with_what_to_do(make: Callable[[], Any]) -> None:
    made = make()
    assert copy.copy(made) is made
    assert copy.deepcopy({"made": made}) == {"made": made}
    with pytest.raises(TypeError, match=f"{type(made).__name__} cannot be pickled: make one in each process"):
        pickle.dumps(made)


@pytest.mark.parametrize("config", ["http://localhost:8000", 7, {}], ids=repr)
def test_a_client_without_a_queue_takes_a_configuration_and_nothing_else(config: Any) -> None:
    with pytest.raises(InvalidSettingsError, match="config must be an ExecutorClientConfig, not "):
        HttpExecutorClient(config)
