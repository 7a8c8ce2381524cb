"""Reading what a REST caller sends: bounded while it is read, then taken apart by content type, all in memory.

No part of a body is written to disk, which is why Starlette's own form parser, which spools to files, is not used.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from pydantic import ValidationError
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from ferserve.faces.errors import ImageTooLargeError, InvalidRequestError, UnsupportedMediaError
from ferserve.serving.body_budget import BodyBudget
from ferserve.serving.errors import DeadlineError
from ferserve.serving.requests import AnalyzeOptions
from ferserve.serving.rest_errors import validation_message
from ferserve.serving.rest_requests import OptionsMessage, PicturesMessage

MAX_JSON_FIELDS: Final = 32
"""More than a body has beside its pictures."""
ENVELOPE_BYTES: Final = 64 * 1024
"""Room for multipart headers or for JSON around the pictures."""
RAW: Final = "application/octet-stream"
JSON: Final = "application/json"
MULTIPART: Final = "multipart/form-data"
ParsedT = TypeVar("ParsedT")


def json_bytes(picture_bytes: int) -> int:
    """Most bytes of a JSON body with so many bytes of pictures: base64 takes four for three."""
    return picture_bytes * 4 // 3 + ENVELOPE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyForm:
    """What one endpoint takes.

    Attributes:
        field: name of the pictures in JSON and of their parts in multipart.
        message: the JSON form.
        max_pictures: most pictures in one body, 1 or more.
        max_picture_bytes: most bytes of all pictures of one body together.
        raw: a body may be the bytes of the one picture.
        json: a body may be JSON, which carries the options too.
    """

    field: str
    message: type[PicturesMessage]
    max_pictures: int
    max_picture_bytes: int
    raw: bool
    json: bool = True

    def max_body_bytes(self, media_type: str) -> int:
        """Most bytes of a body of this type."""
        if media_type == JSON:
            return json_bytes(self.max_picture_bytes)
        return self.max_picture_bytes + (ENVELOPE_BYTES if media_type == MULTIPART else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """What a body held."""

    encoded: tuple[bytes, ...]
    options: AnalyzeOptions


class BodyReader:
    """Reads bodies within a bound for each and a bound for all that are held at one time.

    Args:
        timeout_s: longest that one body may take to arrive.
        budget: for what is held, from a body's first byte to its answer.
    """

    def __init__(self, *, timeout_s: float, budget: BodyBudget) -> None:
        self._timeout_s = timeout_s
        self._budget = budget

    @asynccontextmanager
    async def read(
        self, request: Request, parse: Callable[[bytes], ParsedT], *, max_bytes: int, deadline_s: float | None
    ) -> AsyncIterator[ParsedT]:
        """Read a whole body, take it apart, and count it as held until the block ends.

        Args:
            parse: makes of a body what the block gets. The body itself is not kept beside it.
            deadline_s: reading of the loop's clock after which the caller does not wait any more.
        Raises:
            ImageTooLargeError: more than `max_bytes` were announced or came; what came over it was not kept.
            DeadlineError: the body did not arrive in time.
            OverloadedError: all bodies together would be over the bound.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdecimal():
            _check_size(int(declared), max_bytes)
        until_s = asyncio.get_running_loop().time() + self._timeout_s
        body = await self._received(request, max_bytes, until_s if deadline_s is None else min(until_s, deadline_s))
        size_bytes = len(body)
        try:
            parsed = parse(body)
            del body
            yield parsed
        finally:
            self._budget.free(size_bytes)

    async def _received(self, request: Request, max_bytes: int, until_s: float) -> bytes:
        """The whole body, counted as held; of one that is refused nothing stays counted."""
        chunks: list[bytes] = []
        size_bytes = 0
        try:
            async with asyncio.timeout_at(until_s):
                async for chunk in request.stream():
                    _check_size(size_bytes + len(chunk), max_bytes)
                    self._budget.add(len(chunk))
                    chunks.append(chunk)
                    size_bytes += len(chunk)
        except BaseException as error:
            self._budget.free(size_bytes)
            if isinstance(error, TimeoutError):
                raise DeadlineError(f"the body did not arrive in time: {size_bytes} bytes came") from None
            raise
        return b"".join(chunks)


def media_type_of(request: Request, form: BodyForm) -> str:
    """The kind of body that a request announces: `RAW`, `JSON` or `MULTIPART`. A body of no announced type is raw.

    Raises:
        UnsupportedMediaError: another type, or a raw body where many pictures are expected.
    """
    name = parse_options_header(request.headers.get("content-type"))[0].decode("latin-1")
    if name == MULTIPART or (form.json and name == JSON):
        return name
    if form.raw and (not name or name == RAW or name.startswith("image/")):
        return RAW
    kinds = [*(["image/*", RAW] if form.raw else []), MULTIPART, *([JSON] if form.json else [])]
    expected = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
    raise UnsupportedMediaError(f"content type: expected {expected}, got {name[:64] or 'none'}")


def pictures_of(body: bytes, request: Request, form: BodyForm, query: OptionsMessage) -> Pictures:
    """Take a body apart.

    Args:
        query: the options from the query; JSON bodies carry their own instead.
    Raises:
        InvalidRequestError: the body is no such JSON or form, or holds none or too many pictures.
        ImageTooLargeError: the pictures of a body are together over `form.max_picture_bytes`.
        UnsupportedMediaError: see `media_type_of`.
    """
    media_type = media_type_of(request, form)
    if media_type == JSON:
        if request.query_params:
            raise InvalidRequestError("options: expected in the JSON body, got query parameters beside it")
        pictures = _from_json(body, form)
    elif media_type == MULTIPART:
        content_type = request.headers["content-type"]
        pictures = Pictures(encoded=tuple(_from_multipart(body, content_type, form)), options=query.to_options())
    else:
        pictures = Pictures(encoded=(body,), options=query.to_options())
    if not 1 <= len(pictures.encoded) <= form.max_pictures:
        raise _wrong_count(form, len(pictures.encoded))
    _check_size(sum(map(len, pictures.encoded)), form.max_picture_bytes)
    return pictures


def _from_json(body: bytes, form: BodyForm) -> Pictures:
    # Base64 holds no comma, so this counts values. Millions of wrong ones would keep the event loop busy for seconds.
    if body.count(b",") > form.max_pictures + MAX_JSON_FIELDS:
        raise InvalidRequestError(f"JSON body: expected {form.field} and options, got far more values than that")
    try:
        message = form.message.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequestError(validation_message(error.errors(include_url=False, include_input=False))) from None
    return Pictures(encoded=message.pictures, options=message.options.to_options())


def _from_multipart(body: bytes, content_type: str, form: BodyForm) -> list[bytes]:
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise InvalidRequestError("multipart body: expected a boundary in the content type, got none")
    parts = _Parts(form)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": parts.begin,
                "on_header_field": parts.header_name,
                "on_header_value": parts.header_value,
                "on_header_end": parts.header_end,
                "on_headers_finished": parts.headers_finished,
                "on_part_data": parts.data,
                "on_part_end": parts.end,
                "on_end": parts.complete,
            },
        )
        parser.write(body)
    except FormParserError:
        raise InvalidRequestError("multipart body: it is malformed") from None
    if not parts.is_complete:
        raise InvalidRequestError("multipart body: expected a closing boundary, got none")
    return parts.contents


@dataclass(slots=True)
class _Parts:
    """The contents of the parts of one body, as the parser's callbacks bring them."""

    form: BodyForm
    contents: list[bytes] = field(default_factory=list)
    is_complete: bool = False
    _name: bytes = b""
    _value: bytes = b""
    _disposition: bytes = b""
    _pieces: list[bytes] = field(default_factory=list)

    def begin(self) -> None:
        if len(self.contents) == self.form.max_pictures:
            raise _wrong_count(self.form, self.form.max_pictures + 1)
        self._pieces = []
        self._disposition = b""

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def headers_finished(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"name", b"").decode("utf-8", "replace")
        if name != self.form.field:
            raise InvalidRequestError(f"multipart body: expected parts named {self.form.field!r}, got {name[:64]!r}")

    def data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(data[start:end])

    def end(self) -> None:
        self.contents.append(b"".join(self._pieces))
        self._pieces = []

    def complete(self) -> None:
        self.is_complete = True


def _wrong_count(form: BodyForm, count: int) -> InvalidRequestError:
    expected = "one picture" if form.max_pictures == 1 else f"1 to {form.max_pictures} pictures"
    return InvalidRequestError(f"{form.field}: expected {expected}, got {count}")


def _check_size(size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise ImageTooLargeError(f"body: expected at most {max_bytes} bytes, got more")
