"""Settings: the file, then the environment, and a clear word about what is wrong."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

import pytest
from pydantic import SecretStr
from support.plans import abort_plan

from dispatcher import (
    Dispatcher,
    ExecutorClientConfig,
    InvalidSettingsError,
    RetryStrategy,
    Settings,
    load_settings,
)
from dispatcher.settings import variables
from dispatcher.tasks.app import make_celery

ROOT = Path(__file__).parents[3]
ABSENT = {
    "queue",
    "base_url",
    "token",
    "token_file",
    "circuit_breaker_slow_call_sec",
    "ca_file",
    "client_cert_file",
    "client_key_file",
    "kind",
    "requests_per_sec",
    "error_rate_query",
    "latency_query",
    "status_query",
    "requests_query",
    "latency_p50_query",
    "latency_p95_query",
    "latency_p99_query",
    "baseline",
    "scrape_interval_sec",
    "method",
    "headers",
    "body",
    "path",
    "expected_statuses",
    "request_timeout_sec",
    "concurrency",
    "recovery_timeout_sec",
}
"""Settings whose default TOML cannot say: to have none, or another setting."""


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(variables, "_warned", set())


def test_the_default_file_says_every_setting_and_its_default() -> None:
    written = tomllib.loads((ROOT / "config/default.toml").read_text("utf-8"))
    settings = load_settings()
    defaults = settings.model_dump(mode="json", exclude={"redis_url", "queue"}, exclude_none=True)
    assert defaults["executors"]["default"].pop("base_url") == "http://localhost:8000"  # of host and port
    assert written.pop("redis_url") == settings.redis_url.get_secret_value()
    assert written == defaults
    text = (ROOT / "config/default.toml").read_text("utf-8")
    assert all(f"# {name} = " in text for name in ABSENT)


def test_the_specifications_knobs_have_their_names_and_defaults() -> None:
    specified = {
        "executor_host": "localhost",
        "max_retries": 3,
        "retry_strategy": RetryStrategy.EXPONENTIAL_BACKOFF,
        "initial_retry_delay_sec": 0.5,
        "max_retry_delay_sec": 10.0,
        "default_timeout_sec": 30.0,
        "connection_timeout_sec": 5.0,
        "health_check_interval_sec": 60.0,
        "circuit_breaker_enabled": True,
        "circuit_breaker_failure_threshold": 5,
        "circuit_breaker_timeout_sec": 60.0,
    }
    config = ExecutorClientConfig()
    assert {name: getattr(config, name) for name in specified} == specified


@pytest.mark.parametrize("token", ["pa55\n", "two words", "pässword"])
def test_a_token_that_fits_into_no_header_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("DISPATCHER_EXECUTORS__DEFAULT__TOKEN", token)
    with pytest.raises(InvalidSettingsError, match="token must be printable ASCII") as caught:
        load_settings()
    assert token not in str(caught.value)


def test_a_token_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("pa55\n", "utf-8")
    monkeypatch.setenv("DISPATCHER_EXECUTORS__DEFAULT__TOKEN_FILE", str(tmp_path / "token"))
    token = load_settings().executors["default"].token
    assert token is not None
    assert token.get_secret_value() == "pa55"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "token_file must be the name of a file that this user can reach"),
        (b"", "token_file holds no token: "),
        (b"two pa55words", "token_file must be printable ASCII without spaces"),
        (b"pa55\xff", "token_file must be printable ASCII without spaces"),
    ],
    ids=["is not there", "is empty", "holds two words", "holds no text"],
)
def test_a_file_of_a_token_is_refused_and_not_repeated_if_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    monkeypatch.setenv("DISPATCHER_EXECUTORS__DEFAULT__TOKEN_FILE", str(tmp_path / "file"))
    with pytest.raises(InvalidSettingsError, match=said) as caught:
        load_settings()
    assert "pa55" not in str(caught.value)


def test_a_token_and_a_file_of_it_exclude_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("pa55", "utf-8")
    monkeypatch.setenv("DISPATCHER_EXECUTORS__DEFAULT__TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("DISPATCHER_EXECUTORS__DEFAULT__TOKEN", "another")
    with pytest.raises(InvalidSettingsError, match="token and token_file exclude each other"):
        load_settings()


@pytest.mark.parametrize("text", ['queue = "here"', "[server]\nport = 8080", "port: = 8080"])
def test_no_file_of_the_working_directory_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").mkdir()
    for name in ("config/default.toml", "default.toml", ".env", "celeryconfig.py"):
        (tmp_path / name).write_text(text)
    assert load_settings().queue == "dispatcher"


def test_the_queue_has_the_name_of_the_key_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_KEY_PREFIX", "alpha")
    assert load_settings().queue == "alpha"
    monkeypatch.setenv("DISPATCHER_QUEUE", "beta")
    assert load_settings().queue == "beta"


def test_a_wrong_key_prefix_is_the_one_thing_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_KEY_PREFIX", "a{b}")
    with pytest.raises(InvalidSettingsError) as caught:
        load_settings()
    assert [field for field, _ in caught.value.problems] == ["key_prefix"]


KUBERNETES = {
    "DISPATCHER_SERVICE_HOST": "10.0.0.1",
    "DISPATCHER_SERVICE_PORT": "80",
    "DISPATCHER_SERVICE_PORT_HTTP": "80",
    "DISPATCHER_PORT": "tcp://10.0.0.1:80",
    "DISPATCHER_PORT_80_TCP": "tcp://10.0.0.1:80",
    "DISPATCHER_PORT_80_TCP_ADDR": "10.0.0.1",
    "DISPATCHER_WORKER_PORT_53_UDP_PROTO": "udp",
    "DISPATCHER_REDIS_SERVICE_HOST": "10.0.0.2",
}
"""What it sets in every container for services with the names dispatcher, dispatcher-worker and so on."""


def test_variables_of_kubernetes_change_nothing_and_are_not_mentioned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    defaults = load_settings()
    for name, value in KUBERNETES.items():
        monkeypatch.setenv(name, value)
    assert load_settings() == defaults
    assert not caplog.messages


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("DISPATCHER_REDIS_ULR", "DISPATCHER_REDIS_URL"),
        ("DISPATCHER_WORKER__THREDS", "DISPATCHER_WORKER__THREADS"),
        ("DISPATCHER_EXECUTORS__LAB__BASE_ULR", "DISPATCHER_EXECUTORS__LAB__BASE_URL"),
        ("DISPATCHER_EXECUTERS__LAB__BASE_URL", "DISPATCHER_EXECUTORS__LAB__BASE_URL"),
        ("DISPATCHER_EXECUTORS__DEFAULT__OBSERVER__KINDS", "DISPATCHER_EXECUTORS__DEFAULT__OBSERVER__KIND"),
        ("DISPATCHER_SERVICES__SHOP__HOST_HEADR", "DISPATCHER_SERVICES__SHOP__HOST_HEADER"),
        ("DISPATCHER_COLOR", None),
        ("DISPATCHER_EXECUTORS__DEFAULT__COLOR", None),
    ],
)
def test_a_variable_that_is_not_a_setting_has_no_effect_and_is_named(
    variable: str, meant: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    defaults = load_settings()
    monkeypatch.setenv(variable, "7")
    assert load_settings() == defaults
    load_settings()
    hint = "" if meant is None else f"; did you mean {meant}?"
    assert caplog.messages == [f"{variable} is not a setting, and has no effect{hint}"]  # once


def test_what_a_driver_wants_to_know_may_have_any_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DISPATCHER_EXECUTORS__DEFAULT__DRIVER_OPTIONS__COLOR", "red")
    assert load_settings().executors["default"].driver_options == {"color": "red"}
    assert not caplog.messages


def test_a_named_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_text('[executors.default]\nretry_strategy = "linear"')
    monkeypatch.setenv("DISPATCHER_CONFIG", str(tmp_path / "mine.toml"))
    assert load_settings().executors["default"].retry_strategy is RetryStrategy.LINEAR_BACKOFF


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_text("[executors.default]\nexecutor_port = 1\nmax_retries = 7")
    monkeypatch.setenv("DISPATCHER_CONFIG", str(tmp_path / "mine.toml"))
    monkeypatch.setenv("DISPATCHER_EXECUTORS__DEFAULT__EXECUTOR_PORT", "2")
    executor = load_settings().executors["default"]
    assert (executor.executor_port, executor.max_retries) == (2, 7)


def test_an_executor_is_found_by_host_and_port_or_by_url(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().executors["default"].url == "http://localhost:8000"
    monkeypatch.setenv("DISPATCHER_EXECUTORS__DEFAULT__BASE_URL", "https://executor/prefix/")
    assert load_settings().executors["default"].url == "https://executor/prefix"


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("DISPATCHER_REDIS_URL", "http://:pa55@here", "redis_url"),
        ("DISPATCHER_REDIS_URL", "rediss://:pa55@here?ssl_cert_reqs=never", "ssl_cert_reqs"),
        ("DISPATCHER_REDIS_URL", "redis://:pa55@here?socket_timeout=soon", "socket_timeout"),
        ("DISPATCHER_REDIS_URL", "redis://:pa55@here?pa55word=1", "may have as options in its query"),
        ("DISPATCHER_REDIS_URL", "redis://:pa55@here?connection_class=pa55", "options in its query"),
        ("DISPATCHER_REDIS_URL", "redis://:pa55@here?ssl_ca_certs=/pa55", "options in its query"),
        ("DISPATCHER_REDIS_URL", "redis://:pa55@here?protocol=7", "must have 2 or 3 as its protocol"),
        ("DISPATCHER_REDIS_URL", "redis://:pa55@here?max_connections=-1", "a whole number from 0 on"),
        ("DISPATCHER_REDIS_URL", "redis://:pa55@here?health_check_interval=-5", "a whole number from 0 on"),
        ("DISPATCHER_REDIS_URL", "redis://:pa55@here?socket_timeout=0", "a number of seconds above 0"),
        ("DISPATCHER_REDIS_URL", "redis://:pa55@here?socket_timeout=nan", "a number of seconds above 0"),
        ("DISPATCHER_REDIS_URL", "redis://:pa55@here?socket_connect_timeout=inf", "seconds above 0"),
        ("DISPATCHER_REDIS_URL", "redis://:pa55@here?client_name=pa55%0A", "client_name that must be"),
        ("DISPATCHER_BROKER_URL", "redis://:pa55@here?socket_timeout=-1", "a number of seconds above 0"),
        ("DISPATCHER_REDIS_URL", "redis://:pa55@here/pa55", "the number of a database as its path"),
        ("DISPATCHER_REDIS_URL", "REDIS://:pa55@here", "must be a URL such as redis://"),
        ("DISPATCHER_REDIS_URL", " redis://:pa55@here", "redis_url must be a valid URL"),
        ("DISPATCHER_REDIS_URL", "redis://:pa55@here/0\n", "redis_url must be a valid URL"),
        ("DISPATCHER_REDIS_URL", "redis://:pa55@..", "redis_url must be a valid URL"),
        ("DISPATCHER_REDIS_URL", "redis://:pa55@" + "a" * 64, "redis_url must be a valid URL"),
        ("DISPATCHER_BROKER_URL", "nosuch://u:pa55@here", "broker_url must begin with a broker"),
        ("DISPATCHER_BROKER_URL", "rediss://:pa55@here?ssl_cert_reqs=never", "ssl_cert_reqs"),
        ("DISPATCHER_BROKER_URL", "amqp://here;redis://:pa55@here?pa55word=1", "options in its query"),
        ("DISPATCHER_EXECUTORS__DEFAULT__BASE_URL", "http://..", "executors.default.base_url"),
        ("DISPATCHER_KEY_PREFIX", "a{b}", "key_prefix"),
        ("DISPATCHER_RESULT_EXPIRES_SEC", "0", "result_expires_sec"),
        ("DISPATCHER_REDIS_TIMEOUT_SEC", "0.09", "redis_timeout_sec"),
        ("DISPATCHER_WORKER__LEASE_SEC", "many", "worker.lease_sec"),
        ("DISPATCHER_REDIS_TIMEOUT_SEC", "1e308", "redis_timeout_sec"),
        ("DISPATCHER_EXECUTORS__DEFAULT__READ_TIMEOUT_SEC", "1e308", "read_timeout_sec"),
        ("DISPATCHER_RESULT_EXPIRES_SEC", "9" * 30, "result_expires_sec"),
        ("DISPATCHER_LOGS__FORMAT", "xml", "logs.format"),
        ("DISPATCHER_EXECUTORS__DEFAULT__BASE_URL", "ftp://x", "executors.default.base_url"),
        ("DISPATCHER_EXECUTORS__DEFAULT__BASE_URL", "http://me:pa55@x", "executors.default.base_url"),
        ("DISPATCHER_EXECUTORS__DEFAULT__BASE_URL", "http://:pa55@x", "executors.default.base_url"),
        ("DISPATCHER_EXECUTORS__DEFAULT__RETRY_STRATEGY", "never", "executors.default.retry_strategy"),
        ("DISPATCHER_EXECUTORS__DEFAULT__MAX_RETRY_DELAY_SEC", "0.1", "executors.default"),
        ("DISPATCHER_EXECUTORS__DEFAULT__CIRCUIT_BREAKER_FAILURE_THRESHOLD", "0", "failure_threshold"),
        ("DISPATCHER_EXECUTORS__DEFAULT__CIRCUIT_BREAKER_TIMEOUT_SEC", "601", "max_timeout_sec"),
        ("DISPATCHER_EXECUTORS__DEFAULT__CIRCUIT_BREAKER_ON_OPEN", "ask", "circuit_breaker_on_open"),
        ("DISPATCHER_EXECUTORS__DEFAULT__RETRY_BUDGET_RATIO", "2", "retry_budget_ratio"),
        ("DISPATCHER_EXECUTORS__DEFAULT__HEALTH_CHECK_INTERVAL_SEC", "0", "health_check_interval_sec"),
        ("DISPATCHER_WORKER", '{"color": "red"}', "worker.color"),
        ("DISPATCHER_WORKER", "{", "DISPATCHER_WORKER must be JSON"),
        ("DISPATCHER_WORKER", "[" * 20_000, "DISPATCHER_WORKER must be JSON"),
        ("DISPATCHER_EXECUTORS__DEFAULT__DRIVER_OPTIONS", "pa55", "__DEFAULT__DRIVER_OPTIONS must be JSON"),
        ("DISPATCHER_EXECUTORS__DEFAULT__TOKEN_FILE", "pa55", "token_file must be the name of a file"),
        ("DISPATCHER_EXECUTORS__DEFAULT__CLIENT_KEY_FILE", "-----BEGIN pa55", "must be the name of a file"),
        ("DISPATCHER_EXECUTORS__DEFAULT__OBSERVER", '{"kind": "pa55"}', "must have as its kind one of these"),
        ("DISPATCHER_WORKER", '{"threads": true}', "worker.threads must be a number, not true or false"),
        ("DISPATCHER_EXECUTORS", '{"a": {"read_timeout_sec": true}}', "a.read_timeout_sec must be a number"),
        ("DISPATCHER_EXECUTORS", '{"a": {"circuit_breaker_slow_call_sec": false}}', "must be a number"),
        ("DISPATCHER_CONFIG", "nowhere.toml", "nowhere.toml"),
    ],
)
def test_what_is_wrong_is_named(
    variable: str, value: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSettingsError) as caught:
        load_settings()
    assert named in str(caught.value)
    assert "pa55" not in repr(caught.value)


@pytest.mark.parametrize("url", ["redis://u:pa55@here:7/1", "redis://here:7?db=1&username=u&password=pa55"])
def test_user_and_database_may_be_in_the_path_or_in_the_query_of_a_redis_url(url: str) -> None:
    settings = Settings(redis_url=SecretStr(url))
    celery = make_celery(settings)
    connection = celery.connection()
    assert (connection.userid, connection.password, connection.virtual_host) == ("u", "pa55", "1")
    assert celery.backend.connparams.items() >= {"username": "u", "password": "pa55", "db": 1}.items()
    assert settings.redis_address == "redis://here:7/1"


@pytest.mark.parametrize(
    ("url", "missing"),
    [
        ("sqs://u:pa55@", "for sqs: No module named 'boto"),
        ("amqp://here;consul://u:pa55@here", "for consul: Missing python-consul library"),
        ("confluentkafka://u:pa55@here", "for confluentkafka: name 'KafkaException' is not defined"),
    ],
)
def test_a_broker_whose_package_is_missing_takes_no_plan_and_starts_no_worker(url: str, missing: str) -> None:
    settings = Settings(broker_url=SecretStr(url))  # programs that only read need no broker
    with Dispatcher(settings) as dispatcher:
        for use in (
            lambda: make_celery(settings),
            lambda: dispatcher.submit(abort_plan()),
            lambda: dispatcher.submit_many([abort_plan()]),
            lambda: asyncio.run(dispatcher.submit_async(abort_plan())),
        ):
            with pytest.raises(InvalidSettingsError) as caught:
                use()
            assert f"broker_url needs a package that is not installed, {missing}" in str(caught.value)
            assert "pa55" not in repr(caught.value)


def test_an_empty_broker_url_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_BROKER_URL", "")
    assert load_settings().broker_shares_redis


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_text('queue = "mine"\r\n', "utf-8-sig")
    monkeypatch.setenv("DISPATCHER_CONFIG", str(tmp_path / "mine.toml"))
    assert load_settings().queue == "mine"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("queue = ", "is not valid TOML"),
        ("redis_timeout_sec = " + "9" * 5_000, "has a number with too many digits"),
        ("queue = " + "[" * 20_000, "has too many brackets"),
    ],
    ids=["not TOML", "a long number", "many brackets"],
)
def test_a_file_that_no_parser_reads_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    monkeypatch.setenv("DISPATCHER_CONFIG", str(tmp_path / "mine.toml"))
    with pytest.raises(InvalidSettingsError, match=rf"mine\.toml {problem}"):
        load_settings()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_REDIS_URL", "redis://:pa55@redis.example:7000/1")
    monkeypatch.setenv("DISPATCHER_EXECUTORS__DEFAULT__TOKEN", "pa55")
    settings = load_settings()
    assert "pa55" not in repr(settings)
    assert settings.redis_address == "redis://redis.example:7000/1"
