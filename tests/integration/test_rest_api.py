import asyncio
import base64
import json
import logging

import httpx
import pytest
from google.protobuf.json_format import MessageToDict

from ferserve.faces.errors import FerserveError, InvalidImageError, Reason
from ferserve.serving.body_budget import BodyBudget
from ferserve.serving.convert import analysis_to_pb, model_to_pb
from ferserve.serving.errors import OverloadedError
from ferserve.serving.health import Health
from ferserve.serving.http_server import HttpServer, bind
from ferserve.serving.requests import AnalyzeOptions, Priority
from ferserve.serving.rest_api import HttpConfig, create_rest_app
from ferserve.serving.status import STATUS
from ferserve.serving.streams import StreamConfig

MAX_IMAGE_BYTES = 1000
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture
def health():
    health = Health()
    health.ready()
    return health


@pytest.fixture
def make_app(fake_analyzer, health, fake_observer):
    def make(max_held_bytes=2**30, **settings):
        return create_rest_app(
            fake_analyzer,
            health,
            HttpConfig(port=0, **settings),
            max_image_bytes=MAX_IMAGE_BYTES,
            streams=StreamConfig(),
            bodies=BodyBudget(max_held_bytes),
            observer=fake_observer,
            version="1.2.3",
        )

    return make


@pytest.fixture
async def client(make_app):
    async with client_of(make_app()) as client:
        yield client


def client_of(app) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture
async def start_server(make_app):
    servers = []

    async def start(**settings) -> HttpServer:
        config = HttpConfig(port=0, **settings)
        server = HttpServer(
            make_app(**settings),
            bind(config.host, config.port),
            header_timeout_s=config.header_timeout_s,
            keep_alive_s=config.keep_alive_s,
        )
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop(1.0)


def protobuf_json(message) -> dict:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def error_of(response) -> dict:
    error = response.json()["error"]
    assert error["code"] == response.status_code
    assert error["request_id"] == response.headers["X-Request-Id"]
    return error


@pytest.mark.parametrize(
    "sent",
    [
        {"content": b"one", "headers": JPEG},
        {"content": b"one", "headers": {"Content-Type": "image/x-unheard-of"}},
        {"content": b"one", "headers": {"Content-Type": "application/octet-stream"}},
        {"content": b"one"},
        {"files": {"image": ("me.jpg", b"one", "image/jpeg")}},
        {"json": {"image": b64(b"one")}},
    ],
)
async def test_every_kind_of_body_gives_what_grpc_gives(client, fake_analyzer, sample_analysis, sent):
    response = await client.post("/v1/images:analyze", **sent)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == protobuf_json(analysis_to_pb(sample_analysis))
    assert [data for data, _, _ in fake_analyzer.asked] == [b"one"]


async def test_options_come_in_the_query_of_a_raw_body(client, fake_analyzer):
    query = {"model": "m", "priority": "bulk", "detection_size": 640, "exact": "true", "max_faces": 3}
    await client.post("/v1/images:analyze", params=query, content=b"one", headers=JPEG)
    ((_, options, _),) = fake_analyzer.asked
    assert options == AnalyzeOptions(model="m", priority=Priority.BULK, detection_size_px=640, exact=True, max_faces=3)


async def test_options_come_in_the_body_of_json(client, fake_analyzer):
    body = {"image": b64(b"one"), "options": {"priority": "PRIORITY_BULK", "max_faces": 3}}
    await client.post("/v1/images:analyze", json=body)
    ((_, options, _),) = fake_analyzer.asked
    assert options == AnalyzeOptions(priority=Priority.BULK, max_faces=3)


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        ({"params": {"max_face": 1}, "content": b"one", "headers": JPEG}, "max_face: unknown"),
        ({"params": {"max_faces": 0}, "content": b"one", "headers": JPEG}, "max_faces: "),
        ({"params": {"priority": "low"}, "content": b"one", "headers": JPEG}, "priority: "),
        ({"params": {"exact": "true"}, "json": {"image": ""}}, "options: expected in the JSON body"),
        ({"json": {"image": b64(b"one"), "options": {"exakt": True}}}, "options.exakt: unknown"),
        ({"json": {"image": "no base64!"}}, "image: "),
        ({"json": {}}, "image: "),
        ({"json": {"image": b64(b"one")} | {f"k{n}": n for n in range(20)}}, "k4: unknown; and 15 more"),
        ({"json": {"image": b64(b"one")} | {f"k{n}": n for n in range(99)}}, "far more values"),
        ({"params": {f"k{n}": n for n in range(20)}, "content": b"one", "headers": JPEG}, "and 15 more"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, "Invalid JSON"),
        ({"files": {"picture": b"one"}}, "expected parts named 'image', got 'picture'"),
        ({"files": [("image", b"one"), ("image", b"two")]}, "image: expected one picture, got 2"),
        ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, "closing boundary"),
        ({"content": b"zz", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, "malformed"),
        ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}}, "expected a boundary"),
    ],
)
async def test_a_wrong_request_is_refused_with_the_culprit_named(client, fake_analyzer, sent, named):
    response = await client.post("/v1/images:analyze", **sent)
    error = error_of(response)
    assert (response.status_code, error["reason"]) == (400, "INVALID_REQUEST")
    assert named in error["message"]
    assert fake_analyzer.asked == []


async def test_a_message_never_repeats_what_may_be_a_picture(client):
    secret = b64(b"secret pixels") + "!"
    for path, field in (("images:analyze", "image"), ("images:batchAnalyze", "images"), ("faces:classify", "faces")):
        value = secret if field == "image" else [secret]
        response = await client.post(f"/v1/{path}", json={field: value})
        assert response.status_code == 400
        assert secret[:8] not in response.text


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "video/mp4"])
async def test_another_content_type_is_unsupported_media(client, kind):
    response = await client.post("/v1/images:analyze", content=b"one", headers={"Content-Type": kind})
    assert (response.status_code, error_of(response)["reason"]) == (415, "UNSUPPORTED_MEDIA")
    assert kind in error_of(response)["message"]


async def test_a_raw_body_cannot_hold_many_pictures(client):
    response = await client.post("/v1/images:batchAnalyze", content=b"one", headers=JPEG)
    assert error_of(response)["reason"] == "UNSUPPORTED_MEDIA"


async def test_a_deadline_counts_from_the_arrival(client, fake_analyzer):
    before_s = asyncio.get_running_loop().time()
    await client.post("/v1/images:analyze", content=b"one", headers=JPEG | {"X-Request-Timeout-Ms": "5000"})
    ((_, _, context),) = fake_analyzer.asked
    assert before_s + 5 <= context.deadline_s <= asyncio.get_running_loop().time() + 5


async def test_without_the_header_the_deadline_is_left_to_the_analyzer(client, fake_analyzer):
    await client.post("/v1/images:analyze", content=b"one", headers=JPEG)
    ((_, _, context),) = fake_analyzer.asked
    assert context.deadline_s is None


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "soon", "600001", "9" * 5000, ""])
async def test_a_wrong_deadline_is_refused(client, text):
    response = await client.post("/v1/images:analyze", content=b"one", headers=JPEG | {"X-Request-Timeout-Ms": text})
    assert response.status_code == 400
    assert "X-Request-Timeout-Ms: expected 1 to 600000" in error_of(response)["message"]


async def test_a_request_id_comes_back_and_goes_in(client, fake_analyzer):
    response = await client.post("/v1/images:analyze", content=b"one", headers=JPEG | {"X-Request-Id": "call-7"})
    assert response.headers["X-Request-Id"] == "call-7"
    assert fake_analyzer.asked[0][2].request_id == "call-7"


@pytest.mark.parametrize("unusable", ["", "two words", "x" * 129, "é"])
async def test_an_unusable_request_id_is_replaced(client, unusable):
    headers = [(b"X-Request-Id", unusable.encode("latin-1"))]
    ids = [(await client.get("/v1/models", headers=headers)).headers["X-Request-Id"] for _ in range(2)]
    assert unusable not in ids
    assert len(set(ids)) == 2


@pytest.mark.parametrize("reason", list(Reason))
async def test_every_reason_has_its_status_and_form(client, fake_analyzer, reason):
    leaf = type("Leaf", (FerserveError,), {"reason": reason})
    fake_analyzer.errors[b"bad"] = leaf("what came", retry_after_s=1.2)
    response = await client.post("/v1/images:analyze", content=b"bad", headers=JPEG)
    error = error_of(response)
    assert (response.status_code, error["reason"]) == (STATUS[reason].http_status, reason.value)
    if reason is Reason.INTERNAL:
        assert error["message"] == "internal error"
        assert "Retry-After" not in response.headers
    else:
        assert (error["message"], error["retry_after_ms"]) == ("what came", 1200)
        assert response.headers["Retry-After"] == "2"


async def test_an_error_without_a_retry_says_none(client, fake_analyzer):
    fake_analyzer.errors[b"bad"] = InvalidImageError("no picture")
    response = await client.post("/v1/images:analyze", content=b"bad", headers=JPEG)
    assert "Retry-After" not in response.headers
    assert "retry_after_ms" not in error_of(response)


async def test_an_unforeseen_error_is_logged_with_its_id_and_not_told(client, fake_analyzer, caplog):
    fake_analyzer.errors[b"bad"] = RuntimeError("secret")
    with caplog.at_level(logging.ERROR):
        response = await client.post("/v1/images:analyze", content=b"bad", headers=JPEG)
    assert response.status_code == 500
    assert error_of(response)["message"] == "internal error"
    assert "secret" not in response.text
    (record,) = [record for record in caplog.records if record.name.startswith("ferserve")]
    assert record.request_id == response.headers["X-Request-Id"]
    assert "secret" in str(record.exc_info[1])


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/v1/nothing", 404, "NOT_FOUND"),
        ("GET", "/nothing", 404, "NOT_FOUND"),
        ("GET", "/v1/images:analyze", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/v1/models", 405, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_the_frameworks_own_errors_have_the_same_form(client, method, path, status, reason):
    response = await client.request(method, path)
    assert response.status_code == status
    assert error_of(response)["reason"] == reason


async def stream(total: int, *, chunk: int = 100):
    for _ in range(total // chunk):
        yield b"x" * chunk


@pytest.mark.parametrize("size", [MAX_IMAGE_BYTES + 1, 10 * MAX_IMAGE_BYTES])
async def test_an_announced_body_over_the_limit_is_refused(client, size):
    response = await client.post("/v1/images:analyze", content=b"x" * size, headers=JPEG)
    assert (response.status_code, error_of(response)["reason"]) == (413, "IMAGE_TOO_LARGE")
    assert str(MAX_IMAGE_BYTES) in error_of(response)["message"]


async def test_a_body_at_the_limit_is_taken(client):
    response = await client.post("/v1/images:analyze", content=b"x" * MAX_IMAGE_BYTES, headers=JPEG)
    assert response.status_code == 200


async def test_a_body_of_unknown_length_is_refused_once_it_passes_the_limit(client, fake_analyzer):
    response = await client.post("/v1/images:analyze", content=stream(10 * MAX_IMAGE_BYTES), headers=JPEG)
    assert response.status_code == 413
    assert fake_analyzer.asked == []


async def test_pictures_of_a_batch_are_bounded_together_and_in_number(make_app):
    async with client_of(make_app(max_batch_bytes=100, max_batch_images=3)) as client:
        heavy = await client.post("/v1/images:batchAnalyze", json={"images": [b64(b"x" * 60)] * 2})
        many = await client.post("/v1/images:batchAnalyze", files=[("images", b"x")] * 4)
        fine = await client.post("/v1/images:batchAnalyze", files=[("images", b"x")] * 3)
    assert (heavy.status_code, many.status_code, fine.status_code) == (413, 400, 200)
    assert "images: expected 1 to 3 pictures, got 4" in error_of(many)["message"]


async def test_bodies_together_are_bounded_and_room_comes_back(make_app, fake_analyzer):
    app = make_app(max_held_bytes=1500)
    async with client_of(app) as client:
        held = asyncio.create_task(client.post("/v1/images:analyze", content=b"hold" * 250, headers=JPEG))
        await fake_analyzer.started.get()
        refused = await client.post("/v1/images:analyze", content=b"x" * 600, headers=JPEG)
        fake_analyzer.release.set()
        assert (await held).status_code == 200
        again = await client.post("/v1/images:analyze", content=b"x" * 600, headers=JPEG)
    assert (refused.status_code, error_of(refused)["reason"]) == (429, "OVERLOADED")
    assert refused.headers["Retry-After"] == "1"
    assert again.status_code == 200


async def test_a_bad_picture_of_a_batch_leaves_its_neighbours_alone(client, fake_analyzer, sample_analysis):
    fake_analyzer.errors[b"bad"] = OverloadedError("full", retry_after_s=0.5)
    response = await client.post("/v1/images:batchAnalyze", json={"images": [b64(b"one"), b64(b"bad"), b64(b"two")]})
    good = {"analysis": protobuf_json(analysis_to_pb(sample_analysis))}
    bad = {
        "error": {
            "code": 429,
            "reason": "OVERLOADED",
            "message": "full",
            "request_id": response.headers["X-Request-Id"],
            "retry_after_ms": 500,
        }
    }
    assert response.status_code == 200
    assert response.json() == {"items": [good, bad, good]}


async def test_multipart_keeps_the_order_of_many_pictures(client, fake_analyzer):
    files = [("images", (f"{n}.jpg", f"picture {n}".encode(), "image/jpeg")) for n in range(5)]
    response = await client.post("/v1/images:batchAnalyze?max_faces=2", files=files)
    assert len(response.json()["items"]) == 5
    assert [data for data, _, _ in fake_analyzer.asked] == [f"picture {n}".encode() for n in range(5)]
    assert all(options.max_faces == 2 for _, options, _ in fake_analyzer.asked)


async def test_ready_made_faces_are_classified_item_by_item(client, fake_analyzer):
    fake_analyzer.errors[b"bad"] = InvalidImageError("no picture")
    response = await client.post("/v1/faces:classify", files=[("faces", b"one"), ("faces", b"bad")])
    good, bad = response.json()["items"]
    assert good["classification"]["expression"] == "EXPRESSION_HAPPY"
    assert good["classification"]["scores"]["happy"] == 0.5
    assert bad["error"]["reason"] == "INVALID_IMAGE"
    assert set(response.json()) == {"items", "model", "timings"}


async def test_models_are_listed_and_described(client, sample_model):
    described = protobuf_json(model_to_pb(sample_model))
    assert (await client.get("/v1/models")).json() == {"models": [described]}
    assert (await client.get(f"/v1/models/{sample_model.name}")).json() == described
    absent = await client.get("/v1/models/absent")
    assert (absent.status_code, error_of(absent)["reason"]) == (404, "MODEL_NOT_FOUND")


async def test_the_documentation_needs_no_other_host(client):
    page = (await client.get("/docs")).text
    assert "://" not in page.replace("http://test", "")
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/static-offline-docs/{asset}" in page
        assert (await client.get(f"/static-offline-docs/{asset}")).status_code == 200


async def test_the_openapi_document_is_whole(client):
    document = (await client.get("/openapi.json")).json()
    assert document["info"]["version"] == "1.2.3"
    analyze = document["paths"]["/v1/images:analyze"]["post"]
    content = analyze["requestBody"]["content"]
    assert set(content) == {"image/*", "application/octet-stream", "multipart/form-data", "application/json"}
    assert {parameter["name"] for parameter in analyze["parameters"]} == {
        "model", "priority", "detection_size", "exact", "max_faces",
    }  # fmt: skip
    assert "422" not in json.dumps(document)
    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas


def references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


async def test_an_occlusion_map_comes_with_its_square(client, fake_analyzer):
    response = await client.post("/v1/faces:occlusion?face=0&grid=3&model=mobilenet", content=b"picture", headers=JPEG)
    assert response.status_code == 200, response.text
    reply = response.json()
    assert reply["drops"] == [[-1, -0.75, -0.5], [-0.25, 0, 0.25], [0.5, 0.75, 1]]
    assert reply["corners"] == [{"x": 25, "y": 25}, {"x": 45, "y": 35}, {"x": 35, "y": 55}, {"x": 15, "y": 45}]
    assert reply["face"]["expression"] == "EXPRESSION_HAPPY"
    assert (reply["width_px"], reply["height_px"], reply["model"]["name"]) == (640, 480, "mobilenet")
    [(data, options, _)] = fake_analyzer.asked
    assert (data, options) == (b"picture", AnalyzeOptions(model="mobilenet"))


@pytest.mark.parametrize("query", ["grid=1", "grid=13", "face=-1", "faces=1"])
async def test_an_occlusion_map_out_of_range_is_refused(client, query):
    response = await client.post(f"/v1/faces:occlusion?{query}", content=b"picture", headers=JPEG)
    assert (response.status_code, response.json()["error"]["reason"]) == (400, "INVALID_REQUEST")
    assert response.json()["error"]["message"].startswith(query.partition("=")[0])


async def test_an_occlusion_map_takes_no_json(client):
    response = await client.post("/v1/faces:occlusion", json={"image": ""})
    assert response.status_code == 415
    assert response.json()["error"]["message"] == (
        "content type: expected image/*, application/octet-stream or multipart/form-data, got application/json"
    )


async def test_probes_and_refusals_follow_the_gateways_health(fake_analyzer, fake_observer):
    health = Health()
    app = create_rest_app(
        fake_analyzer,
        health,
        HttpConfig(),
        max_image_bytes=MAX_IMAGE_BYTES,
        streams=StreamConfig(),
        bodies=BodyBudget(2**30),
        observer=fake_observer,
        version="1",
    )
    async with client_of(app) as client:
        starting = await client.get("/readyz")
        health.ready()
        ready = await client.get("/readyz")
        health.drain()
        draining = await client.get("/readyz")
        assert (await client.get("/livez")).status_code == 200
        refused = await client.post("/v1/images:analyze", content=b"one", headers=JPEG)
    assert (starting.status_code, starting.text) == (503, "starting\n")
    assert (ready.status_code, ready.text) == (200, "ready\n")
    assert (draining.status_code, draining.text) == (503, "draining\n")
    assert (refused.status_code, error_of(refused)["reason"]) == (503, "NOT_READY")
    assert refused.headers["Retry-After"] == "1"


async def test_every_request_is_reported_by_its_route_and_reason(client, fake_analyzer, fake_observer):
    fake_analyzer.errors[b"bad"] = InvalidImageError("no picture")
    fake_analyzer.errors[b"odd"] = RuntimeError
    for content in (b"one", b"bad", b"odd"):
        await client.post("/v1/images:analyze", content=content, headers=JPEG)
    await client.post("/v1/images:analyze?x=1", content=b"one", headers=JPEG)
    await client.get("/v1/models/absent")
    await client.get("/livez")
    await client.get("/v1/nothing")
    assert [await fake_observer.done.get() for _ in range(5)] == [
        ("/v1/images:analyze", None),
        ("/v1/images:analyze", Reason.INVALID_IMAGE),
        ("/v1/images:analyze", Reason.INTERNAL),
        ("/v1/images:analyze", Reason.INVALID_REQUEST),
        ("/v1/models/{name}", Reason.MODEL_NOT_FOUND),
    ]
    assert fake_observer.done.empty()


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes the connection, which it must."""
    async with asyncio.timeout(10):
        return await reader.read()


async def connect(server: HttpServer):
    host, port = server.address.split(":")
    return await asyncio.open_connection(host, int(port))


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST /v1/images:analyze HTTP/1.1", "Host: x", *lines, "", ""]).encode()


async def test_a_real_server_answers(start_server, sample_analysis):
    server = await start_server()
    async with httpx.AsyncClient(base_url=f"http://{server.address}") as client:
        response = await client.post("/v1/images:analyze", content=b"one", headers=JPEG)
    assert response.json() == protobuf_json(analysis_to_pb(sample_analysis))
    assert "server" not in response.headers


async def test_a_sender_who_is_too_slow_is_told_and_let_go(start_server, health):
    server = await start_server(body_timeout_s=0.05)
    reader, writer = await connect(server)
    writer.write(head("Content-Length: 100") + b"a few bytes")
    answer = await all_of(reader)
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b'"reason":"DEADLINE"' in answer
    assert b"11 bytes came" in answer
    assert health.in_flight == 0
    writer.close()


async def test_a_connection_that_sends_no_request_is_closed(start_server):
    server = await start_server(header_timeout_s=0.05)
    for sent in (b"", b"POST /v1/ima", head()[:-2]):
        reader, writer = await connect(server)
        writer.write(sent)
        assert await all_of(reader) == b""
        writer.close()


async def test_a_sender_of_too_much_can_still_read_why(start_server):
    server = await start_server()
    reader, writer = await connect(server)
    size = 4 * 1024 * 1024
    writer.write(head(f"Content-Length: {size}"))
    writer.write(b"x" * size)
    await writer.drain()
    answer = await all_of(reader)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()
    writer.close()


async def test_a_caller_who_leaves_ends_the_work(start_server, fake_analyzer, health):
    server = await start_server()
    _, writer = await connect(server)
    writer.write(head("Content-Length: 4", "Content-Type: image/png") + b"hold")
    assert await fake_analyzer.started.get() == b"hold"
    writer.close()
    async with asyncio.timeout(10):
        assert await fake_analyzer.left.get() == b"hold"
    assert await health.drained(timeout_s=5)
