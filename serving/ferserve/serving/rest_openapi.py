"""What FastAPI cannot see of our bodies, since one endpoint takes several content types: their OpenAPI description."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
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


def install_openapi(app: FastAPI, messages: Sequence[type[PicturesMessage]]) -> None:
    """Make the document of `app` hold the JSON bodies as well."""
    _, definitions = models_json_schema([(message, "validation") for message in messages], ref_template=_REF)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            document.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # the way that FastAPI documents for extending the document
