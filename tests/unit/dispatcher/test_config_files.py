"""Where settings are from: each wrong value and each value in force has its line or its variable."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import SecretStr
from typer.testing import CliRunner

from dispatcher import ExecutorClientConfig, InvalidSettingsError, Settings, load_settings
from dispatcher.cli import app
from dispatcher.settings.effective import effective
from dispatcher.settings.files import ConfigFile
from dispatcher.settings.schema import json_schema
from dispatcher.settings.sources import Sources
from dispatcher.settings.urls import shown_url

ROOT = Path(__file__).parents[3]
DEFAULT = (ROOT / "config" / "default.toml").read_text("utf-8")
EXECUTOR = "DISPATCHER_EXECUTORS__DEFAULT__"

FILE = """\
key_prefix = "alpha"
on = [
1,
]

[executors.other]
token = "pa55"
max_retries = 1
headers = '''
[no.section]
'''
"""


def configure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(text, "utf-8")
    monkeypatch.setenv("DISPATCHER_CONFIG", str(file))
    return file


def shown(*arguments: str) -> str:
    """What `dispatcher config ...` prints."""
    done = CliRunner().invoke(app, ["config", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_each_key_of_a_file_has_the_line_in_which_it_begins() -> None:
    lines = ConfigFile(Path("f"), FILE, tomllib.loads(FILE)).lines()
    assert lines == {
        ("key_prefix",): 1,
        ("on",): 2,
        ("executors",): 6,
        ("executors", "other"): 6,
        ("executors", "other", "token"): 7,
        ("executors", "other", "max_retries"): 8,
        ("executors", "other", "headers"): 9,
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('redis_ulr = "x"', "redis_ulr is not a field here; did you mean redis_url? ({}, line 1)"),
        (
            "[worker]\nthreads = 3\nthread = 3",
            "worker.thread is not a field here; did you mean threads? ({}, line 3)",
        ),
        ("[workers]\nthreads = 3", "workers is not a field here; did you mean worker? ({}, line 1)"),
        ("[executors.lab]\n\nmax_retry = 1", "did you mean max_retries? ({}, line 3)"),
        (
            '[executors.lab]\n[executors.lab.observer]\nkind = "probe"\nrequest_per_sec = 1',
            "observer.request_per_sec is not a field here; did you mean requests_per_sec? ({}, line 4)",
        ),
        (
            "[executors.lab]\nmax_retries = -1",
            "executors.lab.max_retries must be greater than or equal to 0 ({}, line 2)",
        ),
        ("colour = 1", "colour is not a field here ({}, line 1)"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line_and_the_nearest_name(
    text: str, problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = configure(monkeypatch, tmp_path, text)
    with pytest.raises(InvalidSettingsError) as caught:
        load_settings()
    assert problem.format(file) in str(caught.value)


def test_a_wrong_value_of_a_variable_is_named_with_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configure(monkeypatch, tmp_path, "[worker]\nthreads = 3")
    monkeypatch.setenv("DISPATCHER_WORKER__THREADS", "none")
    with pytest.raises(
        InvalidSettingsError, match=r"worker\.threads must be .* \(DISPATCHER_WORKER__THREADS\)"
    ):
        load_settings()


@pytest.mark.parametrize("content", [b"\xff\xfe", None], ids=["not in UTF-8", "a folder"])
def test_a_file_that_cannot_be_read_is_named(
    content: bytes | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.mkdir() if content is None else file.write_bytes(content)
    monkeypatch.setenv("DISPATCHER_CONFIG", str(file))
    with pytest.raises(InvalidSettingsError, match=r"mine\.toml"):
        load_settings()


def test_an_empty_variable_names_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_CONFIG", "")
    assert load_settings() == Settings()


def test_every_value_in_force_has_its_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = configure(monkeypatch, tmp_path, '[worker]\nthreads = 3\nlease_sec = 7\n[logs]\nformat = "json"')
    monkeypatch.setenv("DISPATCHER_WORKER__THREADS", "5")
    monkeypatch.setenv("DISPATCHER_EXECUTORS", '{"default": {"max_retries": 2, "executor_port": 1}}')
    monkeypatch.setenv(f"{EXECUTOR}MAX_RETRIES", "4")
    lines = shown("show").splitlines()
    assert "worker.threads = 5  # DISPATCHER_WORKER__THREADS" in lines
    assert f"worker.lease_sec = 7.0  # {file}, line 3" in lines
    assert f'logs.format = "json"  # {file}, line 5' in lines
    assert f"executors.default.max_retries = 4  # {EXECUTOR}MAX_RETRIES" in lines
    assert "executors.default.executor_port = 1  # DISPATCHER_EXECUTORS" in lines
    assert 'executors.default.executor_host = "localhost"  # default' in lines
    assert "executors.default.token = (absent)  # default" in lines


def test_json_has_an_object_for_each_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = configure(monkeypatch, tmp_path, "[worker]\nthreads = 3")
    monkeypatch.setenv(f"{EXECUTOR}TOKEN", "pa55")
    found = {each["setting"]: each for each in map(json.loads, shown("show", "--json").splitlines())}
    assert found["worker.threads"] == {
        "version": 1,
        "setting": "worker.threads",
        "value": 3,
        "hidden": False,
        "source": "file",
        "file": str(file),
        "line": 2,
    }
    assert found["executors.default.token"] == {
        "version": 1,
        "setting": "executors.default.token",
        "value": "***",
        "hidden": True,
        "source": "variable",
        "variable": f"{EXECUTOR}TOKEN",
    }


def test_no_secret_of_any_kind_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    observer = {"kind": "probe", "headers": {"Authorization": "Bearer pa55"}, "body": "pa55"}
    options = {"api_key": "pa55", "keys": ["pa55"], "nested": {"key": "pa55"}, "number": 7}
    service = {"base_url": "http://shop", "token": "pa55", "apis": {"/a b": {"path": "/users?key=pa55"}}}
    monkeypatch.setenv("DISPATCHER_REDIS_URL", "rediss://me:pa55@here:7/1?ssl_password=pa55")
    monkeypatch.setenv(
        "DISPATCHER_BROKER_URL", "sentinel://:pa55@one:1;sentinel://:pa55@two:2/0?password=pa55"
    )
    executor = {"token": "pa55", "observer": observer, "driver_options": options}
    monkeypatch.setenv("DISPATCHER_EXECUTORS", json.dumps({"default": executor}))
    monkeypatch.setenv("DISPATCHER_SERVICES", json.dumps({"shop": service}))
    for output in (shown("show"), shown("show", "--json"), repr(load_settings()), str(load_settings())):
        assert "pa55" not in output
    lines = shown("show").splitlines()
    assert 'redis_url = "rediss://***@here:7/1?***"  # DISPATCHER_REDIS_URL' in lines
    assert 'broker_url = "sentinel://***@one:1;sentinel://***@two:2/0?***"  # DISPATCHER_BROKER_URL' in lines
    assert "executors.default.driver_options.number = 7  # DISPATCHER_EXECUTORS" in lines
    assert 'services.shop.apis."/a b".path = "/users?***"  # DISPATCHER_SERVICES' in lines


SECRET = st.text(st.characters(min_codepoint=33, exclude_categories=["Cs"]), max_size=12).map(
    "s3cret{}".format
)
"""Unescaped, as people paste them."""


@given(
    secret=st.tuples(SECRET, st.text("/?#@:;[]%&℀0", max_size=4)).map("".join),
    user=st.sampled_from(["", "me"]),
)
@pytest.mark.parametrize("name", ["redis_url", "broker_url", "base_url"])
def test_no_password_in_a_url_is_ever_shown(name: str, secret: str, user: str) -> None:
    scheme = "http" if name == "base_url" else "redis"
    url = f"{scheme}://{user}:{secret}@127.0.0.1:1/0"
    try:
        if name == "base_url":
            output = repr(ExecutorClientConfig(base_url=url))
        else:
            settings = Settings(**{name: SecretStr(url)})  # type: ignore[arg-type]
            sources = Sources(Settings)
            output = repr(settings) + str(list(effective(settings, sources))) + settings.redis_address
    except InvalidSettingsError as exc:
        output = repr(exc) + repr(exc.__context__)
    assert "s3cret" not in output


@given(
    st.sampled_from(
        ["redis://h:1/0", "amqp://h//", "memory://", "filesystem://", "rediss://[::1]:7/0", "sqs://"]
    )
)
def test_a_url_without_a_secret_is_shown_as_it_is(url: str) -> None:
    assert shown_url(url) == url


@pytest.mark.parametrize(
    "kind", [Settings, ExecutorClientConfig], ids=["all settings", "the settings of an Executor"]
)
def test_wrong_arguments_are_named_without_pydantics_error(kind: type[Any]) -> None:
    with pytest.raises(InvalidSettingsError, match="colour is not a field here") as caught:
        kind(colour="pa55")
    assert caught.value.__cause__ is None
    assert "pa55" not in repr(caught.value.__context__)


def test_every_wrong_field_of_every_section_is_named() -> None:
    executors = {"a": {"max_retries": -1}, "b": {"initial_retry_delay_sec": 9, "max_retry_delay_sec": 1}}
    with pytest.raises(InvalidSettingsError) as caught:
        Settings.model_validate({"executors": executors, "queue": "a b"})
    assert [field for field, _ in caught.value.problems] == [
        "queue",
        "executors.a.max_retries",
        "executors.b",
    ]


def uncommented(text: str) -> str:
    """The examples of the default file, in the place of the comments that they are in."""
    begun = text.index("# [executors.default.observer]")
    example = text[begun : text.index("# A Prometheus server")]
    return "\n".join(line.removeprefix("# ") for line in example.splitlines() if not line.startswith(" "))


@pytest.mark.parametrize(
    "text", [DEFAULT, uncommented(DEFAULT)], ids=["every setting with its default", "the probe's example"]
)
def test_the_schema_takes_the_files_of_this_project(text: str) -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(tomllib.loads(text))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("redis_ulr = 'x'", []),
        ("[worker]\nthreads = 0", ["worker", "threads"]),
        ("[executors.lab]\nmax_retry = 1", ["executors", "lab"]),
        (
            "[services.pay]\nbase_url = 'http://pay'\nconcurrency = 1001",
            ["services", "pay", "concurrency"],
        ),
        (
            "[executors.default.observer]\nkind = 'probe'\nexpected_statuses = [200, 4.5]",
            ["executors", "default", "observer"],
        ),
    ],
)
def test_the_schema_refuses_what_the_dispatcher_refuses(text: str, wrong: list[str]) -> None:
    [error] = Draft202012Validator(json_schema()).iter_errors(tomllib.loads(text))
    assert list(error.absolute_path)[: len(wrong)] == wrong


def test_the_schema_says_what_each_setting_means_and_hides_nothing() -> None:
    schema = json.loads(shown("schema"))
    assert schema == json_schema()
    properties = schema["properties"]
    assert properties["redis_url"]["default"] == "redis://127.0.0.1:6379/0"
    assert "Names this fleet" in properties["key_prefix"]["description"]
    [executor] = properties["executors"]["patternProperties"].values()
    assert (
        executor["properties"]["max_retries"]["description"] == "Retries of one call after its first attempt."
    )
