"""Bodies and messages above every limit, made only while they are sent."""

import base64
from random import Random

from tests.damaged.expected import GRPC_TOO_LARGE, Expected
from tests.damaged.inputs import Damaged, HttpRequest, Message, RpcMessage
from tests.damaged.pictures import whole
from tests.damaged.rest_forms import ANALYZE, BATCH

MIB = 2**20
LIMIT_BYTES = 20 * MIB
"""The default limit of one picture."""
_DOORS = ("announced", "in chunks", "base64", "multipart", "batch", "grpc", "grpc batch")


def oversized(rng: Random, index: int, huge_bytes: int = 100 * MIB) -> Damaged:
    """One byte too many, or far too many.

    Args:
        huge_bytes: of the largest ones; one in five is so large.
    """
    door = _DOORS[index % len(_DOORS)]
    size = huge_bytes if index % 5 == 0 else LIMIT_BYTES + rng.choice((1, 4096, MIB, 5 * MIB))
    if door in ("batch", "grpc batch"):
        size = max(size, 65 * MIB)  # a batch may be as large as that
    # gRPC itself refuses a message above its own limit.
    reason = GRPC_TOO_LARGE if door.startswith("grpc") and size > 60 * MIB else "IMAGE_TOO_LARGE"
    return Damaged(
        kind="oversized",
        index=index,
        what=f"{size} bytes, {door}",
        make=lambda: _message(door, size),
        expected=Expected(reasons=frozenset({reason})),
    )


def _message(door: str, size: int) -> Message:
    picture = whole("jpeg", 64)
    data = picture + bytes(size - len(picture))
    raw = (("Content-Type", "image/jpeg"),)
    match door:
        case "announced":
            return HttpRequest(target=ANALYZE, headers=raw, body=data)
        case "in chunks":
            return HttpRequest(target=ANALYZE, headers=raw, body=data, chunk_bytes=MIB)
        case "base64":
            body = b'{"image":"' + base64.b64encode(data) + b'"}'
            return HttpRequest(target=ANALYZE, headers=(("Content-Type", "application/json"),), body=body)
        case "grpc":
            return RpcMessage(method="Analyze", data=_bytes_field(1, data))
        case "grpc batch":
            return RpcMessage(method="BatchAnalyze", data=_bytes_field(1, data[: size // 2]) * 2)
    field = b"images" if door == "batch" else b"image"
    head = b'--B\r\nContent-Disposition: form-data; name="' + field + b'"\r\n\r\n'
    return HttpRequest(
        target=BATCH if door == "batch" else ANALYZE,
        headers=(("Content-Type", "multipart/form-data; boundary=B"),),
        body=head + data + b"\r\n--B--\r\n",
    )


def _bytes_field(number: int, data: bytes) -> bytes:
    """One field of a protocol-buffers message, which `SerializeToString` would copy once more."""
    length, count = bytearray(), len(data)
    while count > 0x7F:
        length.append(count & 0x7F | 0x80)
        count >>= 7
    length.append(count)
    return bytes((number << 3 | 2,)) + bytes(length) + data
