"""TLS over real doors: who may connect, what a new certificate changes, and that nobody is cut off by it."""

import asyncio
import ssl
from contextlib import suppress

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from starlette.responses import PlainTextResponse
from tests.integration.certificates import HOSTS, Files, authority, expired, write
from tests.integration.test_app import config_for, gateway
from websockets.asyncio.client import connect

from ferserve.serving.channel_tls import ChannelTls
from ferserve.serving.client import AsyncClient, Client, ClientConfig
from ferserve.serving.commands.tls_options import caller_config
from ferserve.serving.errors import ConfigError, NotReadyError
from ferserve.serving.http_server import HttpServer, bind
from ferserve.serving.tls import ServerTls, TlsConfig
from ferserve.serving.watched_files import CHECK_EVERY_S

JPEG = {"content-type": "image/jpeg"}
GREETING = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture
def ca(tmp_path):
    return authority(tmp_path, "ca")


@pytest.fixture
def stranger(tmp_path):
    return authority(tmp_path, "stranger")


@pytest.fixture
def server(tmp_path, ca):
    return write(ca[0].issue_cert(*HOSTS), tmp_path, "server")


@pytest.fixture
def caller(tmp_path, ca):
    return write(ca[0].issue_cert("caller@example.org"), tmp_path, "caller")


def tls_config(server: Files, client_ca=None) -> TlsConfig:
    return TlsConfig(certificate_file=server.certificate, key_file=server.key, client_ca_file=client_ca)


@pytest.fixture
async def secured(tiny_archive, server):
    async with gateway(config_for(tiny_archive, tls=tls_config(server))) as (addresses, _):
        yield addresses


@pytest.fixture
async def mutual(tiny_archive, server, ca):
    async with gateway(config_for(tiny_archive, tls=tls_config(server, client_ca=ca[1]))) as (addresses, _):
        yield addresses


def trusting(file, shown: Files | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=file)
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


def grpc_client(addresses, ca_file, shown: Files | None = None) -> AsyncClient:
    files = {} if shown is None else {"certificate_file": shown.certificate, "key_file": shown.key}
    config = ClientConfig(max_attempts=1, timeout_s=20.0, tls=ChannelTls(ca_file=ca_file, **files))
    return AsyncClient(addresses["gRPC"], config)


async def post(addresses, photo, context) -> httpx.Response:
    async with httpx.AsyncClient(base_url=addresses["REST"], verify=context, timeout=30) as client:
        return await client.post("/v1/images:analyze", content=photo, headers=JPEG)


async def frames(photo):
    yield 1, photo


async def test_every_door_of_callers_answers_over_tls(secured, face_photo, ca):
    assert secured["REST"].startswith("https://")
    answer = await post(secured, face_photo, trusting(ca[1]))
    assert len(answer.json()["faces"]) == 1
    async with grpc_client(secured, ca[1]) as client:
        assert len((await client.analyze(face_photo)).faces) == 1
        assert [reply.id async for reply in client.stream(frames(face_photo))] == [1]
    address = secured["REST"].replace("https", "wss", 1)
    async with connect(f"{address}/v1/stream", ssl=trusting(ca[1]), proxy=None) as websocket:
        await websocket.send(bytes(7) + b"\x05" + face_photo)
        assert '"id":"5"' in await websocket.recv()


async def test_the_blocking_client_too(secured, face_photo, ca):
    def ask():
        with Client(secured["gRPC"], ClientConfig(tls=ChannelTls(ca_file=ca[1]))) as client:
            return client.analyze(face_photo)

    assert len((await asyncio.to_thread(ask)).faces) == 1


async def test_a_certificate_for_another_name_is_refused(secured, ca):
    config = ClientConfig(max_attempts=1, tls=ChannelTls(ca_file=ca[1], server_name="elsewhere.example"))
    async with AsyncClient(secured["gRPC"], config) as client:
        with pytest.raises(NotReadyError, match="Hostname Verification"):
            await client.models()


async def test_without_tls_there_is_no_answer(secured, caplog):
    async with httpx.AsyncClient(base_url=secured["REST"].replace("https", "http", 1)) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/livez")
    async with AsyncClient(secured["gRPC"], ClientConfig(max_attempts=1)) as client:
        with pytest.raises(NotReadyError):
            await client.models()
    assert [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}] == []


async def test_a_caller_trusts_no_other_authority(secured, face_photo, stranger):
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        await post(secured, face_photo, trusting(stranger[1]))
    async with grpc_client(secured, stranger[1]) as client:
        with pytest.raises(NotReadyError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.models()


async def test_an_expired_certificate_of_the_server_is_refused_by_callers(tiny_archive, face_photo, ca, tmp_path):
    server = write(expired(ca[0], *HOSTS), tmp_path, "expired")
    async with gateway(config_for(tiny_archive, tls=tls_config(server))) as (addresses, _):
        with pytest.raises(httpx.ConnectError, match="expired"):
            await post(addresses, face_photo, trusting(ca[1]))
        async with grpc_client(addresses, ca[1]) as client:
            with pytest.raises(NotReadyError, match="expired"):
                await client.models()


async def test_a_caller_with_a_certificate_of_the_right_authority_is_let_in(mutual, face_photo, ca, caller):
    assert (await post(mutual, face_photo, trusting(ca[1], caller))).status_code == 200
    async with grpc_client(mutual, ca[1], caller) as client:
        assert len((await client.analyze(face_photo)).faces) == 1


async def test_probes_need_no_certificate_on_the_admin_port(mutual):
    async with httpx.AsyncClient(base_url=mutual["admin"]) as client:
        assert [(await client.get(path)).status_code for path in ("/livez", "/readyz", "/metrics")] == [200] * 3


@pytest.mark.parametrize("shown", ["none", "of another authority", "expired"])
async def test_another_caller_is_not(mutual, face_photo, ca, stranger, tmp_path, shown):
    made = {
        "none": None,
        "of another authority": stranger[0].issue_cert("caller@example.org"),
        "expired": expired(ca[0], "caller@example.org"),
    }[shown]
    files = None if made is None else write(made, tmp_path, "other")
    with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
        await post(mutual, face_photo, trusting(ca[1], files))
    async with grpc_client(mutual, ca[1], files) as client:
        with pytest.raises(NotReadyError):
            await client.models()


async def test_a_certificate_that_does_not_fit_its_key_keeps_the_gateway_from_starting(tiny_archive, server, caller):
    server.key.write_bytes(caller.key.read_bytes())
    with pytest.raises(ConfigError, match="KEY_VALUES_MISMATCH"):
        async with gateway(config_for(tiny_archive, tls=tls_config(server))):
            pass


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tls(server, ca, clock):
    return ServerTls(server.certificate, server.key, ca[1], clock)


async def greet(scope, receive, send):
    """Answers `done` when the whole body came."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.request":
        await PlainTextResponse("done")(scope, receive, send)


@pytest.fixture
async def http(tls):
    server = HttpServer(greet, bind("127.0.0.1", 0), header_timeout_s=60.0, keep_alive_s=60, tls=tls)
    server.start()
    yield server.address.rpartition(":")[2]
    await server.stop(0)


async def test_a_replaced_certificate_meets_new_connections_and_old_ones_go_on(
    http, server, ca, stranger, caller, clock, tmp_path
):
    """The authority of callers is replaced with it: whom the old one vouched for is not let in any more."""
    reader, writer = await asyncio.open_connection("localhost", http, ssl=trusting(ca[1], caller))
    writer.write(GREETING)
    assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200")

    replaced = write(stranger[0].issue_cert(*HOSTS), tmp_path, "server")
    assert replaced == server
    ca[1].write_bytes(stranger[1].read_bytes())
    clock.now_s += CHECK_EVERY_S
    new = write(stranger[0].issue_cert("new@example.org"), tmp_path, "new")
    new_reader, new_writer = await asyncio.open_connection("localhost", http, ssl=trusting(stranger[1], new))
    new_writer.write(GREETING)
    assert (await new_reader.readuntil(b"done")).startswith(b"HTTP/1.1 200")
    new_writer.close()

    old_reader, old_writer = await asyncio.open_connection("localhost", http, ssl=trusting(stranger[1], caller))
    old_writer.write(GREETING)
    answer = b""
    with suppress(ssl.SSLError, ConnectionError):
        answer = await old_reader.read()
    assert answer == b""
    old_writer.close()

    writer.write(GREETING)
    assert (await reader.readuntil(b"done")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_grpc_calls_go_on_while_it_is_replaced(start_grpc, tls, ca, stranger, caller, clock, tmp_path):
    grpc_gateway = await start_grpc(tls=tls)

    def channel(ca_file, shown):
        tls = caller_config(tls=False, tls_ca=ca_file, tls_cert=shown.certificate, tls_key=shown.key, key_file=None).tls
        return AsyncClient(grpc_gateway.target, ClientConfig(max_attempts=1, timeout_s=20.0, tls=tls))

    async with channel(ca[1], caller) as client:
        held = asyncio.create_task(client.analyze(b"hold this"))
        await grpc_gateway.analyzer.started.get()
        trusted_before = tmp_path / "before.pem"
        trusted_before.write_bytes(ca[1].read_bytes())
        write(stranger[0].issue_cert(*HOSTS), tmp_path, "server")
        ca[1].write_bytes(stranger[1].read_bytes())
        clock.now_s += CHECK_EVERY_S
        new = write(stranger[0].issue_cert("new@example.org"), tmp_path, "new")
        async with channel(stranger[1], new) as other:
            assert len(await other.models()) == 1
        async with channel(stranger[1], caller) as refused:
            with pytest.raises(NotReadyError):
                await refused.models()
        grpc_gateway.analyzer.release.set()
        assert len((await held).faces) == 1
        assert len(await client.models()) == 1  # over the connection of before


async def test_health_is_asked_over_tls_like_everything_else(start_grpc, tls, ca, caller):
    grpc_gateway = await start_grpc(tls=tls)
    credentials = grpc.ssl_channel_credentials(
        ca[1].read_bytes(), caller.key.read_bytes(), caller.certificate.read_bytes()
    )
    async with grpc.aio.secure_channel(grpc_gateway.target, credentials) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_what_is_no_http_is_refused_over_tls_too(http, ca, caller):
    reader, writer = await asyncio.open_connection("localhost", http, ssl=trusting(ca[1], caller))
    writer.write(b"GARBAGE\r\n\r\n")
    assert b"INVALID_REQUEST" in await asyncio.wait_for(reader.read(), 10)
    writer.close()
