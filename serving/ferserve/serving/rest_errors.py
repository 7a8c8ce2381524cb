"""Every error of the REST interface in one form: `{"error": {code, reason, message, request_id, retry_after_ms?}}`.

Under `/v2` the Open Inference Protocol asks for `{"error": message}`; the other fields stand beside it there.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ferserve.faces.errors import FerserveError, InvalidRequestError, Reason
from ferserve.serving.errors import CallCancelledError, without_frames
from ferserve.serving.rest_schema import ErrorDetail, ErrorMessage
from ferserve.serving.status import MAX_MESSAGE_CHARS, STATUS, public_error

JSON_TYPE: Final = "application/json"
OIP_PREFIX: Final = "/v2"
NOT_FOUND: Final = "NOT_FOUND"
METHOD_NOT_ALLOWED: Final = "METHOD_NOT_ALLOWED"
MAX_FIELDS_NAMED: Final = 5
logger = logging.getLogger(__name__)


def error_detail(error: Exception, request_id: str) -> ErrorDetail:
    """What a caller gets to see of an error; one that nobody foresaw is logged and says nothing of itself.

    The error holds none of the frames any more that it passed through.
    """
    shown = public_error(error)
    if shown.reason is Reason.INTERNAL:
        logger.error("request failed", exc_info=error, extra={"request_id": request_id})
    without_frames(error)
    retry_after_s = shown.retry_after_s
    return ErrorDetail(
        code=STATUS[shown.reason].http_status,
        reason=shown.reason,
        message=shown.message[:MAX_MESSAGE_CHARS],
        request_id=request_id,
        retry_after_ms=None if retry_after_s is None else math.ceil(retry_after_s * 1000),
    )


def error_response(error: Exception, request_id: str, path: str) -> Response:
    """The whole answer for an error of a request to `path`."""
    detail = error_detail(error, request_id)
    headers = {"WWW-Authenticate": "Bearer"} if detail.reason == Reason.UNAUTHENTICATED else {}
    if detail.retry_after_ms is not None:
        headers["Retry-After"] = str(math.ceil(detail.retry_after_ms / 1000))
    return _response(detail, headers, path)


def install_error_handlers(app: FastAPI) -> None:
    """Give the framework's own errors the same form."""
    app.add_exception_handler(FerserveError, _on_ferserve_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


def validation_message(errors: Sequence[Mapping[str, Any]]) -> str:
    """Name the first fields that are wrong and say what was expected; never repeats what may be a picture."""
    more = len(errors) - MAX_FIELDS_NAMED
    lines = [_one_line(error) for error in errors[:MAX_FIELDS_NAMED]]
    return "; ".join(lines if more <= 0 else [*lines, f"and {more} more"])


def _one_line(error: Mapping[str, Any]) -> str:
    place = ".".join(str(step) for step in error["loc"] if step not in ("query", "header", "body"))[:128]
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown"
    came = error.get("input")
    got = f", got {str(came)[:64]!r}" if isinstance(came, str | int | float) else ""
    return f"{place or 'body'}: {error['msg']}{got}"


def _response(detail: ErrorDetail, headers: Mapping[str, str], path: str) -> Response:
    if path == OIP_PREFIX or path.startswith(f"{OIP_PREFIX}/"):
        fields = detail.model_dump(exclude_none=True)
        content = orjson.dumps({"error": fields.pop("message"), **fields}).decode()
    else:
        content = ErrorMessage(error=detail).model_dump_json(exclude_none=True)
    return Response(content, status_code=detail.code, headers=headers, media_type=JSON_TYPE)


def _on_ferserve_error(request: Request, error: Exception) -> Response:
    request.state.reason = public_error(error).reason
    return error_response(error, request.state.request_id, request.url.path)


def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _on_ferserve_error(request, InvalidRequestError(validation_message(error.errors())))


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    request.state.reason = Reason.INVALID_REQUEST
    status = error.status_code
    reason = {404: NOT_FOUND, 405: METHOD_NOT_ALLOWED}.get(status, str(Reason.INVALID_REQUEST))
    message = f"{HTTPStatus(status).phrase.lower()}: {request.method} {request.url.path[:128]}"
    detail = ErrorDetail(code=status, reason=reason, message=message, request_id=request.state.request_id)
    return _response(detail, error.headers or {}, request.url.path)


def _on_disconnect(request: Request, _error: Exception) -> Response:
    return _on_ferserve_error(request, CallCancelledError("the caller left while sending"))
