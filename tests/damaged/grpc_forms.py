"""gRPC messages that are none, options out of range, and streams that end where they should not."""

from random import Random

from tests.damaged.expected import OF_THE_REQUEST, Decodes, Expected
from tests.damaged.inputs import Damaged, RpcMessage, RpcStream
from tests.damaged.pictures import whole

from ferserve.v1 import expression_service_pb2 as service_pb

UNARY = ("Analyze", "BatchAnalyze", "ClassifyFaces", "GetModel", "ListModels")
_OPTIONAL = ("BatchAnalyze", "ClassifyFaces", "GetModel", "ListModels")
"""Methods that bytes may be a message of by accident: they have an answer to an empty one."""


def protobuf(rng: Random, index: int) -> Damaged:
    """Bytes in the place of a message."""
    method = UNARY[index % len(UNARY)]
    good = _request(method).SerializeToString()
    at = rng.randrange(len(good)) if good else 0
    flipped = bytearray(good)
    if flipped:
        flipped[at] ^= 1 << rng.randrange(8)
    forms = {
        "noise": rng.randbytes(rng.randrange(1, 2000)),
        "ones": b"\xff" * rng.randrange(1, 200),
        "cut off": good[: rng.randrange(len(good))] if good else b"\x0a",
        "a bit flipped": bytes(flipped),
        "a length beyond the end": b"\x0a\xff\xff\xff\xff\x07" + good,
        "a negative length": b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        "field 0": b"\x02\x00" + good,
        "an unknown kind of field": b"\x0f" + good,
        "5,000 groups": b"\x0b" * 5_000,
        "groups that end alone": b"\x0c" * 50,
        "options in options": b"\x12\x7e" * 60,
        "a model that is no utf-8": b"\x12\x04\x0a\x02\xff\xfe\x0a\x02\xff\xfe",
        "unknown fields": b"\xfa\x3e\x02ab" * 1_000,
        "text": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    }
    what = list(forms)[index // len(UNARY) % len(forms)]
    reasons = OF_THE_REQUEST | {"MODEL_NOT_FOUND"}
    perhaps = method in _OPTIONAL or what in ("a bit flipped", "cut off")
    return Damaged(
        kind="protobuf",
        index=index,
        what=f"{what} to {method}",
        make=lambda: RpcMessage(method=method, data=forms[what]),
        expected=Expected(reasons=reasons, decodes=Decodes.PERHAPS if perhaps else Decodes.NEVER),
    )


def options(rng: Random, index: int) -> Damaged:
    """Options out of range, and metadata that nobody reads."""
    size = rng.choice((0, 1, 63, 4097, 2**31, 2**32 - 1))
    invalid, nowhere = frozenset({"INVALID_REQUEST"}), frozenset({"MODEL_NOT_FOUND"})
    forms: dict[str, tuple[dict[str, object], frozenset[str]]] = {
        f"a detection size of {size}": ({"detection_size": size}, invalid),
        "no faces": ({"max_faces": 0}, invalid),
        "1,001 faces": ({"max_faces": 1001}, invalid),
        "a priority of 9": ({"priority": 9}, invalid),
        "a priority of -1": ({"priority": -1}, invalid),
        "an unknown model": ({"model": "nothing"}, nowhere),
        "a model of 100 kB": ({"model": "m" * 100_000}, nowhere),
        "a model that is a path": ({"model": "../../etc/passwd"}, nowhere),
        "a model of odd characters": ({"model": "\x00\r\n\u202e\U0001f600"}, nowhere),
    }
    what = list(forms)[index % len(forms)]
    values, reasons = forms[what]
    request = service_pb.AnalyzeRequest(image=whole("jpeg", 64), options=service_pb.AnalyzeOptions(**values))
    metadata = (("x-request-id", rng.choice(("", "a b", "i" * 2000, "mine"))),)
    return Damaged(
        kind="options",
        index=index,
        what=what,
        make=lambda: RpcMessage(method="Analyze", data=request.SerializeToString(), metadata=metadata),
        expected=Expected(reasons=reasons),
    )


def broken_stream(rng: Random, index: int) -> Damaged:
    """A stream that ends in bytes that are no frame; the frames before it are answered."""
    before = rng.randrange(4)
    noise = rng.choice((b"\xff" * 30, b"\x12\xff\xff\x03", b"\x07" + rng.randbytes(50)))
    return Damaged(
        kind="broken stream",
        index=index,
        what=f"{before} frames before it",
        make=lambda: RpcStream(frames=(*(_frame(n, whole("jpeg", 64)) for n in range(before)), noise)),
        expected=Expected(reasons=frozenset({"INVALID_REQUEST"}), decodes=Decodes.PERHAPS),
    )


def abandoned_stream(rng: Random, index: int) -> Damaged:
    """A stream whose caller leaves in the middle without a word."""
    count, left = rng.choice((1, 20, 100)), rng.choice((0, 0, 1))
    return Damaged(
        kind="abandoned stream",
        index=index,
        what=f"{count} frames, left after {left} replies",
        make=lambda: RpcStream(frames=tuple(_frame(n, whole("jpeg", 96)) for n in range(count)), leave_after=left),
        expected=Expected(decodes=Decodes.PERHAPS),
    )


def empty_frames(rng: Random, index: int) -> Damaged:
    """Thousands of frames of nothing; each gets its own refusal."""
    count = rng.choice((500, 2_000, 5_000))
    frame = (b"", service_pb.StreamAnalyzeRequest(id=7).SerializeToString(), _frame(7, b"\x00"))[index % 3]
    return Damaged(
        kind="empty frames",
        index=index,
        what=f"{count} frames of {len(frame)} bytes",
        make=lambda: RpcStream(frames=(frame,) * count),
        expected=Expected(reasons=frozenset({"UNSUPPORTED_MEDIA" if index % 3 == 2 else "INVALID_IMAGE"})),
    )


def _frame(number: int, data: bytes) -> bytes:
    return service_pb.StreamAnalyzeRequest(id=number, image=data).SerializeToString()


def _request(method: str) -> service_pb.AnalyzeRequest | service_pb.BatchAnalyzeRequest:
    picture = whole("jpeg", 64)
    match method:
        case "Analyze":
            return service_pb.AnalyzeRequest(image=picture)
        case "BatchAnalyze":
            return service_pb.BatchAnalyzeRequest(images=[picture] * 2)
        case "ClassifyFaces":
            return service_pb.ClassifyFacesRequest(faces=[picture] * 2)
        case "GetModel":
            return service_pb.GetModelRequest(name="mobilenet")
    return service_pb.ListModelsRequest()
