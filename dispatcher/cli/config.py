"""`dispatcher config show` and `dispatcher config schema`"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.lines import echo
from dispatcher.settings.effective import Effective, effective
from dispatcher.settings.schema import json_schema
from dispatcher.settings.settings import Settings, load_settings
from dispatcher.settings.sources import Sources

__all__ = ["config"]

config = typer.Typer(
    name="config", help="Settings: what is in force, and what can be set.", no_args_is_help=True
)


@config.command()
def show(
    *,
    as_json: Annotated[
        bool,
        json_option(
            "for each setting: setting, value, hidden, source (default, file, variable) and, "
            "if it is from there, file, line, variable"
        ),
    ] = False,
) -> None:
    """Print each setting that is in force, and where it is from. Secrets are shown as ***.

    A DISPATCHER_* variable comes first, then the file that DISPATCHER_CONFIG names, then the default.
    """
    settings = load_settings()
    for each in effective(settings, Sources(Settings)):
        if as_json:
            print_json(_fields(each))
        else:
            value = "(absent)" if each.value is None else json.dumps(each.value, ensure_ascii=False)
            echo(f"{each.name} = {value}  # {each.source}")


@config.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file.

    Editors complete and check the file by it. For a TOML file, save it next to the file and write the line
    `#:schema ./NAME.json` at the file's top.
    """
    typer.echo(json.dumps(json_schema(), indent=2))


def _fields(setting: Effective) -> dict[str, object]:
    source = setting.source
    known = {"file": source.file, "line": source.line, "variable": source.variable}
    return {
        "setting": setting.name,
        "value": setting.value,
        "hidden": setting.hidden,
        "source": source.kind,
        **{name: value for name, value in known.items() if value is not None},
    }
