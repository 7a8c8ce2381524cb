"""What FastAPI cannot see of our bodies, since one endpoint takes several content types: their OpenAPI description."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ferserve.serving.rest_body import JSON, MULTIPART, RAW
from ferserve.serving.rest_requests import PicturesMessage

_REF = "#/components/schemas/{model}"
_BINARY = {"type": "string", "format": "binary"}


def request_body(field: str, message: type[PicturesMessage], *, raw: bool, json: bool) -> dict[str, Any]:
    """Describe the body of one endpoint, for `openapi_extra`."""
    parts = _BINARY if raw else {"type": "array", "items": _BINARY}
    form = {"type": "object", "properties": {field: parts}, "required": [field], "additionalProperties": False}
    content: dict[str, Any] = {"image/*": {"schema": _BINARY}, RAW: {"schema": _BINARY}} if raw else {}
    content[MULTIPART] = {"schema": form}
    if json:
        content[JSON] = {"schema": {"$ref": _REF.format(model=message.__name__)}}
    return {"requestBody": {"required": True, "content": content}}


def path_parameter(name: str) -> dict[str, Any]:
    """Describe a part of a path that no function names."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def inference_body(message: type[BaseModel], head_length: str, parameters: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Describe the body of an inference, for `openapi_extra`.

    Args:
        head_length: the header that says how many bytes of a binary body are JSON.
        parameters: beside that header.
    """
    header = {
        "name": head_length,
        "in": "header",
        "required": False,
        "description": "Bytes of the body that are JSON; behind them stand the tensors in binary.",
        "schema": {"type": "integer", "minimum": 0},
    }
    content = {JSON: {"schema": {"$ref": _REF.format(model=message.__name__)}}, RAW: {"schema": _BINARY}}
    return {"parameters": [*parameters, header], "requestBody": {"required": True, "content": content}}


def install_openapi(app: FastAPI, messages: Sequence[type[BaseModel]]) -> None:
    """Make the document of `app` hold the JSON bodies as well."""
    _, definitions = models_json_schema([(message, "validation") for message in messages], ref_template=_REF)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            document.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # the way that FastAPI documents for extending the document
