"""What a connection may send that is no request, or not yet one."""

import asyncio
import json

import pytest
from starlette.responses import PlainTextResponse
from uvicorn.server import ServerState

from ferserve.serving.http_server import MAX_HEAD_BYTES, SIGN_OF_LIFE, HttpServer, bind

LINE = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
CHUNKED = LINE + b"Transfer-Encoding: chunked\r\n\r\n"
EMPTY = LINE + b"Content-Length: 0\r\n\r\n"


LENGTH_2 = LINE + b"Content-Length: 2\r\n\r\n"


class SlowAnswer:
    """An application that answers when it is let go; learns who leaves in the meantime."""

    def __init__(self):
        self.came, self.let_go, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, scope, receive, send):
        while (await receive())["more_body"]:
            pass
        self.came.set()
        leaving = asyncio.create_task(receive())
        going_on = asyncio.create_task(self.let_go.wait())
        await asyncio.wait((leaving, going_on), return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            assert leaving.result()["type"] == "http.disconnect"
            self.left.set()
        for task in (leaving, going_on):
            task.cancel()
        await PlainTextResponse("done")(scope, receive, send)


async def count_body(scope, receive, send):
    """Answers with how many bytes came."""
    size_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size_bytes += len(message["body"])
        if not message["more_body"]:
            break
    await PlainTextResponse(str(size_bytes))(scope, receive, send)


@pytest.fixture
async def start():
    servers = []

    async def start(header_timeout_s=60.0, app=count_body):
        server = HttpServer(app, bind("127.0.0.1", 0), header_timeout_s=header_timeout_s, keep_alive_s=60)
        server.start()
        servers.append(server)
        host, _, port = server.address.partition(":")
        return await asyncio.open_connection(host, int(port))

    yield start
    for server in servers:
        await server.stop(1.0)


class FakeTransport(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.is_ended = False
        self._closing = False

    def write(self, data):
        self.written += data

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.is_ended = True

    def close(self):
        self._closing = True

    def is_closing(self):
        return self._closing


def connected(transport):
    """The server's end of a connection, with no kernel between, so that each piece arrives as it was sent."""
    server = HttpServer(count_body, bind("127.0.0.1", 0), header_timeout_s=60.0, keep_alive_s=60)
    server.unbind()
    protocol = server._config.http(config=server._config, server_state=ServerState(), app_state={})
    protocol.connection_made(transport)
    return protocol


def error_in(answer: bytes) -> dict:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert b"connection: close" in head
    error = json.loads(body)["error"]
    assert (error["code"], error["reason"]) == (400, "INVALID_REQUEST")
    assert len(error["request_id"]) == 32
    return error


@pytest.mark.parametrize("sent", [b"GARBAGE\r\n\r\n", LINE + b"Content-Length: -1\r\n\r\n", CHUNKED + b"ZZ\r\n"])
async def test_what_is_no_http_is_refused_in_the_form_of_every_error(start, sent):
    reader, writer = await start()
    writer.write(sent)
    assert error_in(await reader.read())["message"] == "Invalid HTTP request received."
    writer.close()


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (LINE + b"X: ", b"a"),
        (LINE, b"X: y\r\n"),
        (b"GET /", b"a"),
        (CHUNKED + b"5\r\nhello\r\n0\r\n", b"X: y\r\n"),
        (CHUNKED + b"5;", b"a"),
    ],
    ids=["one header", "many headers", "address", "trailers", "chunk extension"],
)
async def test_a_head_without_end_is_refused(first, then):
    transport = FakeTransport()
    protocol = connected(transport)
    protocol.data_received(first)
    pieces = 0
    while not (transport.is_ended or transport.is_closing()) and pieces < 1000:
        protocol.data_received((then * 1024)[:1024])
        pieces += 1
    assert pieces in (MAX_HEAD_BYTES // 1024, MAX_HEAD_BYTES // 1024 + 1)
    assert error_in(transport.written)["message"] == f"expected a head of at most {MAX_HEAD_BYTES} bytes, got more"
    protocol.connection_lost(None)


async def test_a_sender_of_too_long_a_head_can_still_read_why(start):
    reader, writer = await start()
    writer.write(LINE + b"X: " + b"a" * 20 * MAX_HEAD_BYTES)
    await writer.drain()
    assert error_in(await reader.read())["reason"] == "INVALID_REQUEST"
    writer.close()


async def test_nonsense_behind_a_request_leaves_its_answer_alone(start):
    reader, writer = await start()
    writer.write(EMPTY + b"GARBAGE\r\n\r\n")
    answer = await reader.read()
    assert answer.count(b"HTTP/1.1 ") == 1
    writer.close()


async def test_a_long_body_in_short_pieces_is_no_head(start):
    reader, writer = await start()
    pieces = MAX_HEAD_BYTES // 2
    writer.write(CHUNKED)
    for _ in range(0, pieces, 64):
        writer.write(b"1\r\nx\r\n" * 64)
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    assert (await reader.readuntil(str(pieces).encode())).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_many_requests_on_one_connection_may_have_long_heads_together(start):
    reader, writer = await start()
    for _ in range(10):
        writer.write(LINE + b"X: " + b"a" * (MAX_HEAD_BYTES // 4) + b"\r\nContent-Length: 2\r\n\r\nhi")
        assert (await reader.readuntil(b"\r\n\r\n2")).startswith(b"HTTP/1.1 200 ")
    writer.close()


async def test_empty_lines_between_requests_do_not_hold_a_connection(start):
    reader, writer = await start(header_timeout_s=0.05)
    writer.write(EMPTY)
    assert (await reader.readuntil(b"\r\n\r\n0")).startswith(b"HTTP/1.1 200 ")
    writer.write(b"\r\n")
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_who_sends_no_more_gets_the_answer(start):
    app = SlowAnswer()
    reader, writer = await start(app=app)
    writer.write(LENGTH_2 + b"hi")
    writer.write_eof()
    assert await reader.readuntil(b"\r\n\r\n") == SIGN_OF_LIFE
    await app.came.wait()
    app.let_go.set()
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer
    assert answer.endswith(b"\r\n\r\ndone")
    assert not app.left.is_set()
    writer.close()


async def test_who_sends_no_more_behind_two_requests_gets_both_answers(start):
    reader, writer = await start()
    writer.write(LENGTH_2 + b"hi" + EMPTY)
    writer.write_eof()
    answers = (await asyncio.wait_for(reader.read(), 10)).replace(SIGN_OF_LIFE, b"")
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert answers.endswith(b"\r\n\r\n0")
    writer.close()


async def test_who_leaves_is_noticed_though_it_looks_like_sending_no_more(start):
    app = SlowAnswer()
    _, writer = await start(app=app)
    writer.write(LENGTH_2 + b"hi")
    await app.came.wait()
    writer.close()
    await asyncio.wait_for(app.left.wait(), 10)


@pytest.mark.parametrize(
    "sent",
    [b"", LINE, LENGTH_2 + b"h", CHUNKED + b"2\r\nhi\r\n", EMPTY.replace(b"/1.1", b"/1.0")],
    ids=["nothing", "half a head", "half a body", "no last chunk", "HTTP/1.0"],
)
async def test_who_sends_no_more_before_the_end_is_hung_up_on(sent):
    transport = FakeTransport()
    protocol = connected(transport)
    if sent:
        protocol.data_received(sent)
    assert not protocol.eof_received()
    assert transport.written == b""
    protocol.connection_lost(None)
