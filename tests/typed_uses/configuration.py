"""Read the settings, and make a dispatcher with others."""

from typing import assert_type

from pydantic import SecretStr

from dispatcher import Dispatcher, ExecutorClientConfig, RetryStrategy, Settings, load_settings


def run() -> Dispatcher:
    found = load_settings()
    assert_type(found, Settings)
    config = found.executors["default"]
    assert_type(config, ExecutorClientConfig)
    assert_type(config.url, str)
    assert_type(config.max_retries, int)
    assert_type(config.retry_strategy, RetryStrategy)
    assert_type(config.token, SecretStr | None)
    own = ExecutorClientConfig(executor_host="executor", executor_port=8000, max_retry_delay_sec=5)
    return Dispatcher(Settings(redis_url=SecretStr("redis://localhost:6379/0"), executors={"default": own}))
