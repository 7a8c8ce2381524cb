"""What may be answered to a damaged input, and what is wrong with an answer."""

import io
import re
import struct
import sysconfig
import tempfile
import warnings
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from PIL import Image, ImageOps

ANSWERED = "OK"
CLOSED = "CLOSED"
"""The connection ended without an answer: right only where no whole request ever came."""
GRPC_TOO_LARGE = "GRPC_TOO_LARGE"
"""gRPC's own refusal of a message above its limit, before any code of ours runs; it carries no reason."""

# The agreed table once more, by hand, so that the product's own table is held to it.
HTTP_STATUS = {
    ANSWERED: 200,
    "INVALID_REQUEST": 400,
    "INVALID_IMAGE": 400,
    "UNSUPPORTED_MEDIA": 415,
    "IMAGE_TOO_LARGE": 413,
    "MODEL_NOT_FOUND": 404,
    "OVERLOADED": 429,
    "DEADLINE": 504,
}
GRPC_CODE = {
    ANSWERED: "OK",
    "INVALID_REQUEST": "INVALID_ARGUMENT",
    "INVALID_IMAGE": "INVALID_ARGUMENT",
    "UNSUPPORTED_MEDIA": "INVALID_ARGUMENT",
    "IMAGE_TOO_LARGE": "INVALID_ARGUMENT",
    "MODEL_NOT_FOUND": "NOT_FOUND",
    "OVERLOADED": "RESOURCE_EXHAUSTED",
    "DEADLINE": "DEADLINE_EXCEEDED",
    GRPC_TOO_LARGE: "RESOURCE_EXHAUSTED",
}
OF_THE_PICTURE = frozenset({"INVALID_IMAGE", "UNSUPPORTED_MEDIA", "IMAGE_TOO_LARGE"})
OF_THE_REQUEST = OF_THE_PICTURE | {"INVALID_REQUEST"}

MAX_MESSAGE_CHARS = 400
_INTERNALS = re.compile(r"Traceback|\.py\b|0x[0-9a-f]{6,}|<class|Exception|Error\b")
_SERVER_PATHS = tuple(
    str(path)
    for path in (
        Path(__file__).parents[2],
        sysconfig.get_path("purelib"),
        sysconfig.get_path("stdlib"),
        tempfile.gettempdir(),
        "site-packages",
    )
)


class Decodes(Enum):
    """Whether an input may be answered as if nothing were wrong with it."""

    NEVER = "never"
    PERHAPS = "perhaps"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What an input may get.

    Attributes:
        reasons: reasons of errors it may be refused with; `CLOSED` and `GRPC_TOO_LARGE` count among them.
        decodes: whether an answer without error is right.
    """

    reasons: frozenset[str] = frozenset()
    decodes: Decodes = Decodes.NEVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back over one door.

    Attributes:
        door: how it was sent.
        code: HTTP status or name of the gRPC code, as text; empty where nothing came.
        reason: `OK`, a reason of the table, `CLOSED`, `GRPC_TOO_LARGE`, or whatever else came.
        message: for people.
        size: width and height in the answer to a picture; None elsewhere.
    """

    door: str
    code: str
    reason: str
    message: str = ""
    size: tuple[int, int] | None = None


def fault(expected: Expected, answer: Answer, picture: bytes | None = None) -> str | None:
    """Say what is wrong with an answer; None if nothing is.

    Args:
        picture: what was sent, where it was a picture alone: an answer without error has to be an honest one.
    """
    return (
        _wrong_code(answer)
        or wrong_message(answer)
        or _wrong_reason(expected, answer)
        or (_dishonest(answer, picture) if picture is not None and answer.reason == ANSWERED else None)
    )


def _wrong_code(answer: Answer) -> str | None:
    if answer.reason == CLOSED:
        return None
    table = HTTP_STATUS if answer.code.isdigit() else GRPC_CODE
    if answer.reason not in table:
        return f"{answer.reason} is no reason of the table (code {answer.code}: {answer.message!r})"
    if answer.code != str(table[answer.reason]):
        return f"{answer.reason} came with code {answer.code}, expected {table[answer.reason]}"
    return None


def wrong_message(answer: Answer) -> str | None:
    """A message has to say something, within bounds, and nothing of the server."""
    if answer.reason not in (ANSWERED, CLOSED, GRPC_TOO_LARGE) and not answer.message:
        return f"{answer.reason} came without a message"
    if len(answer.message) > MAX_MESSAGE_CHARS:
        return f"a message of {len(answer.message)} characters"
    if any(path in answer.message for path in _SERVER_PATHS):
        return f"a path of the server in {answer.message!r}"
    if answer.reason != GRPC_TOO_LARGE and _INTERNALS.search(answer.message):
        return f"internals in {answer.message!r}"
    return None


def _wrong_reason(expected: Expected, answer: Answer) -> str | None:
    if answer.reason == ANSWERED:
        return "answered, expected a refusal" if expected.decodes is Decodes.NEVER else None
    if expected.decodes is Decodes.ALWAYS:
        return f"refused as {answer.reason}: {answer.message!r}, expected an answer"
    if answer.reason not in expected.reasons:
        return f"{answer.reason}: {answer.message!r}, expected one of {', '.join(sorted(expected.reasons))}"
    return None


def _dishonest(answer: Answer, picture: bytes) -> str | None:
    """Whether another decoder reads every pixel of the picture too, and of the same size."""
    try:
        with warnings.catch_warnings(action="ignore"):
            size = _size_of(picture)
    except Exception as error:  # noqa: BLE001 -- whatever Pillow raises, it did not read the picture
        return f"answered, but Pillow does not read it: {error}"
    if answer.size is not None and answer.size != size:
        return f"answered with a size of {answer.size}, Pillow reads {size}"
    return None


def _size_of(picture: bytes) -> tuple[int, int]:
    """Upright; what is no EXIF turns nothing."""
    with Image.open(io.BytesIO(picture)) as image:
        image.load()
        try:
            return ImageOps.exif_transpose(image).size
        except (SyntaxError, struct.error):
            return image.size
