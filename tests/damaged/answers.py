"""What came back, read from either protocol into one form."""

import json
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from tests.damaged.expected import ANSWERED, CLOSED, GRPC_TOO_LARGE, Answer

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def http_answer(door: str, received: bytes) -> tuple[Answer, Any]:
    """The answer, and its content."""
    while received.startswith(_CONTINUE):
        received = received.removeprefix(_CONTINUE)
    head, _, body = received.partition(b"\r\n\r\n")
    if not head:
        return Answer(door=door, code="", reason=CLOSED), None
    code = head.split()[1].decode()
    try:
        content = json.loads(body)
    except ValueError:
        return Answer(door=door, code=code, reason="no JSON", message=body[:200].decode("utf-8", "replace")), None
    if "error" in content:
        error = content["error"]
        return Answer(door=door, code=code, reason=error["reason"], message=error["message"]), content
    return item_answer(door, {"analysis": content}), content


def item_answer(door: str, item: Any) -> Answer:
    """What became of one picture, in the JSON of REST."""
    if "error" in item:
        error = item["error"]
        return Answer(door=door, code=str(error["code"]), reason=error["reason"], message=error["message"])
    analysis = item.get("analysis", {})
    size = (analysis["width_px"], analysis["height_px"]) if "width_px" in analysis else None
    return Answer(door=door, code="200", reason=ANSWERED, size=size)


def outcome_answer(door: str, outcome: Any) -> Answer:
    """What became of one picture, in the messages of gRPC."""
    if any(field.name == "error" for field, _ in outcome.ListFields()):
        return _status_answer(door, outcome.error)
    analysis = getattr(outcome, "analysis", None)
    size = None if analysis is None else (analysis.width_px, analysis.height_px)
    return Answer(door=door, code="OK", reason=ANSWERED, size=size)


def rpc_failure(door: str, error: grpc.aio.AioRpcError) -> Answer:
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if packed is not None:
        return _status_answer(door, Status.FromString(packed))
    message = error.details() or ""
    is_grpcs_own = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in message
    return Answer(
        door=door,
        code=error.code().name,
        reason=GRPC_TOO_LARGE if is_grpcs_own else "no reason",
        message=message,
    )


def _status_answer(door: str, status: Status) -> Answer:
    code = next(code.name for code in grpc.StatusCode if code.value[0] == status.code)
    info = ErrorInfo()
    reasons = [info.reason for detail in status.details if detail.Unpack(info)]
    return Answer(door=door, code=code, reason=reasons[0] if reasons else "no reason", message=status.message)
