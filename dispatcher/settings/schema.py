"""JSON Schema of the configuration file, for editors."""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from dispatcher.settings.settings import Settings

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core.core_schema import ModelSchema

__all__ = ["field_texts", "json_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _WithTexts(GenerateJsonSchema):
    """Adds the docstrings of fields."""

    def model_schema(self, schema: ModelSchema) -> JsonSchemaValue:
        """See `GenerateJsonSchema`."""
        made = super().model_schema(schema)
        for name, text in field_texts(schema["cls"]).items():
            if name in made.get("properties", {}):
                made["properties"][name]["description"] = text
        return made


def json_schema() -> dict[str, Any]:
    """The schema of the file that `DISPATCHER_CONFIG` names, in the dialect 2020-12."""
    schema = Settings.model_json_schema(schema_generator=_WithTexts)
    redis_url = schema["properties"]["redis_url"]
    redis_url["default"] = Settings.model_fields["redis_url"].default.get_secret_value()  # holds no password
    about = {"title": "fault-dispatcher", "description": "The file that DISPATCHER_CONFIG names."}
    return {"$schema": DIALECT} | schema | about


def field_texts(model: type[BaseModel]) -> dict[str, str]:
    """The docstring of each field of the model, those of its bases included, if it has one.

    Pydantic reads them too, but when a module is imported, which would slow each command by 0.1 s.
    """
    texts: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel) and kind.__module__.startswith("dispatcher."):
            texts |= _texts_in(textwrap.dedent(inspect.getsource(kind)))
    return texts


def _texts_in(source: str) -> dict[str, str]:
    [definition] = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)  # noqa: S101 (it is the source of a class)
    return {
        field.target.id: inspect.cleandoc(text)
        for field, docstring in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(docstring, ast.Expr) and isinstance(docstring.value, ast.Constant)
        if isinstance(text := docstring.value.value, str)
    }
