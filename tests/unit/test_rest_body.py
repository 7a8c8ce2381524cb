import asyncio

import pytest
from starlette.requests import Request

from ferserve.faces.errors import ImageTooLargeError, UnsupportedMediaError
from ferserve.serving.body_budget import LARGE_BYTES, BodyBudget
from ferserve.serving.errors import DeadlineError, OverloadedError
from ferserve.serving.rest_body import ENVELOPE_BYTES, JSON, MULTIPART, RAW, BodyForm, BodyReader, media_type_of
from ferserve.serving.rest_requests import AnalyzeMessage

ONE = BodyForm(field="image", message=AnalyzeMessage, max_pictures=1, max_picture_bytes=300, raw=True)


class Sender:
    """Sends chunks of ten bytes, as many as asked for, and counts them."""

    def __init__(self, chunks: float = float("inf"), **headers: str) -> None:
        self.sent = 0
        self._chunks = chunks
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self.request = Request({"type": "http", "method": "POST", "headers": named}, self.receive)

    async def receive(self):
        self.sent += 1
        return {"type": "http.request", "body": b"x" * 10, "more_body": self.sent < self._chunks}


class SilentSender(Sender):
    async def receive(self):
        await asyncio.Event().wait()


@pytest.fixture
def budget():
    return BodyBudget(1000)


@pytest.fixture
def reader(budget):
    return BodyReader(timeout_s=60, budget=budget)


async def read(reader, sender, *, max_bytes=100, deadline_s=None) -> bytes:
    async with reader.read(sender.request, bytes, max_bytes=max_bytes, deadline_s=deadline_s) as body:
        return body


async def test_a_body_is_held_until_its_answer_is_out(reader, budget):
    async with reader.read(Sender(chunks=10).request, bytes, max_bytes=100, deadline_s=None) as body:
        assert body == b"x" * 100
        assert budget.held_bytes == 100
    assert budget.held_bytes == 0


async def test_reading_stops_as_soon_as_the_limit_is_passed(reader, budget):
    endless = Sender()
    with pytest.raises(ImageTooLargeError, match="at most 100 bytes"):
        await read(reader, endless)
    assert endless.sent == 11
    assert budget.held_bytes == 0


async def test_nothing_is_read_of_what_is_announced_as_too_much(reader):
    announced = Sender(content_length="101")
    with pytest.raises(ImageTooLargeError):
        await read(reader, announced)
    assert announced.sent == 0


async def test_bodies_together_stay_within_the_bound(reader, budget):
    async with reader.read(Sender(chunks=95).request, bytes, max_bytes=10_000, deadline_s=None):
        with pytest.raises(OverloadedError) as caught:
            await read(reader, Sender(chunks=95), max_bytes=10_000)
        assert caught.value.retry_after_s > 0
        assert budget.held_bytes == 950
    assert budget.held_bytes == 0


async def test_a_slow_sender_is_given_up():
    with pytest.raises(DeadlineError, match="0 bytes came"):
        await read(BodyReader(timeout_s=0.01, budget=BodyBudget(1000)), SilentSender())


async def test_a_callers_own_deadline_ends_the_reading_too(reader):
    with pytest.raises(DeadlineError):
        await read(reader, SilentSender(), deadline_s=asyncio.get_running_loop().time() + 0.01)


@pytest.mark.parametrize(
    ("announced", "kind"),
    [
        ("image/jpeg", RAW),
        ("IMAGE/PNG; q=1", RAW),
        ("application/octet-stream", RAW),
        ("application/json; charset=utf-8", JSON),
        ("multipart/form-data; boundary=x", MULTIPART),
    ],
)
def test_the_kind_of_a_body_is_what_its_type_says(announced, kind):
    assert media_type_of(Sender(content_type=announced).request, ONE) == kind


def test_an_endless_type_is_not_repeated():
    with pytest.raises(UnsupportedMediaError) as caught:
        media_type_of(Sender(content_type="text/" + "x" * 5000).request, ONE)
    assert len(caught.value.message) < 300


def test_a_limit_on_the_body_leaves_room_for_base64_and_headers():
    assert ONE.max_body_bytes(RAW) == 300
    assert ONE.max_body_bytes(JSON) == 400 + ENVELOPE_BYTES
    assert ONE.max_body_bytes(MULTIPART) == 300 + ENVELOPE_BYTES


def test_what_a_large_body_left_behind_is_given_back_after_it():
    freed: list[int] = []
    budget = BodyBudget(3 * LARGE_BYTES, large_freed=lambda: freed.append(budget.held_bytes))
    with budget.hold(LARGE_BYTES), budget.hold(LARGE_BYTES - 1):
        assert not freed
    assert freed == [0]
