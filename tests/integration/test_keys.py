"""Keys over real doors: who has none, or the wrong one, gets nothing, on gRPC and REST alike."""

import asyncio
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest
from tests.integration.test_app import config_for, gateway
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from ferserve.serving.access import AccessConfig
from ferserve.serving.client import AsyncClient, ClientConfig
from ferserve.serving.errors import ForbiddenError, PurposeRefusedError, RateLimitedError, UnauthenticatedError
from ferserve.serving.keys import sha256_of
from ferserve.serving.rest_gate import KEY_PROTOCOL, STREAM_PROTOCOL

FERSERVE = Path(sys.executable).with_name("ferserve")
KEYS = {name: "fer_" + name[0] * 43 for name in ("shop", "lister", "office", "clinic", "trickle")}
ENTRIES = {
    "shop": 'purpose = "retail"',
    "lister": 'purpose = "research"\nscopes = ["models"]',
    "office": 'purpose = "workplace"',
    "clinic": 'purpose = "workplace"\nexemption = "medical"',
    "trickle": 'purpose = "personal"\nfaces_per_minute = 1',
}
JPEG = {"content-type": "image/jpeg"}
ONCE = ClientConfig(max_attempts=1)


@pytest.fixture
def keys_file(tmp_path):
    file = tmp_path / "keys.toml"
    entries = (
        f'[[key]]\nname = "{name}"\nsha256 = "{sha256_of(KEYS[name])}"\n{rest}' for name, rest in ENTRIES.items()
    )
    file.write_text("\n".join(entries))
    return file


@pytest.fixture
async def doors(tiny_archive, keys_file):
    config = config_for(tiny_archive, access=AccessConfig(keys_file=keys_file))
    async with gateway(config) as (addresses, _):
        yield addresses


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[name]}"}


async def post(doors, photo, **headers) -> httpx.Response:
    async with httpx.AsyncClient(base_url=doors["REST"], timeout=30) as client:
        return await client.post("/v1/images:analyze", content=photo, headers=JPEG | headers)


def grpc_client(doors, name: str) -> AsyncClient:
    return AsyncClient(doors["gRPC"], ClientConfig(max_attempts=1, api_key=KEYS[name]))


async def test_a_good_key_opens_both_doors(doors, face_photo):
    assert (await post(doors, face_photo, **bearer("shop"))).status_code == 200
    async with grpc_client(doors, "clinic") as client:
        assert len((await client.analyze(face_photo)).faces) == 1
        assert [model.name for model in await client.models()] == ["tiny"]
        assert [reply.id async for reply in client.stream(frames(face_photo))] == [1]


async def frames(photo):
    yield 1, photo


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer " + "x" * 47}, {"x-api-key": KEYS["shop"]}])
async def test_rest_without_a_good_key_answers_401_and_how_to_ask(doors, face_photo, headers):
    answer = await post(doors, face_photo, **headers)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_two_keys_are_none(doors):
    async with httpx.AsyncClient(base_url=doors["REST"]) as client:
        headers = [("authorization", f"Bearer {KEYS['shop']}"), ("authorization", f"Bearer {KEYS['lister']}")]
        assert (await client.get("/v1/models", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/tiny", "/v1/models/../models", "/v1//models", "//v1/models"]
)
async def test_no_path_leads_around_the_gate(doors, path):
    async with httpx.AsyncClient(base_url=doors["REST"]) as client:
        assert (await client.get(path)).status_code in {401, 404}


async def test_grpc_without_a_key_gets_nothing_of_any_method(doors, face_photo):
    async with AsyncClient(doors["gRPC"], ONCE) as client:
        for call in (
            client.analyze(face_photo),
            client.analyze_batch([face_photo]),
            client.classify([face_photo]),
            client.models(),
            client.model("tiny"),
        ):
            with pytest.raises(UnauthenticatedError):
                await call
        with pytest.raises(UnauthenticatedError):
            [reply async for reply in client.stream(frames(face_photo))]


async def test_another_scope_and_a_forbidden_purpose_are_told_apart(doors, face_photo):
    async with grpc_client(doors, "lister") as client:
        assert len(await client.models()) == 1
        with pytest.raises(ForbiddenError):
            await client.analyze(face_photo)
    async with grpc_client(doors, "office") as client:
        with pytest.raises(PurposeRefusedError, match=r"5\(1\)\(f\)"):
            await client.analyze(face_photo)
    answer = await post(doors, face_photo, **bearer("office"))
    assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "PURPOSE_REFUSED")


async def test_faces_are_limited_by_key_over_both_doors_together(doors, face_photo):
    assert (await post(doors, face_photo, **bearer("trickle"))).status_code == 200
    answer = await post(doors, face_photo, **bearer("trickle"))
    assert (answer.status_code, answer.json()["error"]["reason"]) == (429, "RATE_LIMITED")
    assert 0 < int(answer.headers["retry-after"]) <= 60
    async with grpc_client(doors, "trickle") as client:
        with pytest.raises(RateLimitedError) as refused:
            await client.analyze(face_photo)
    assert 0 < refused.value.retry_after_s <= 60
    assert (await post(doors, face_photo, **bearer("shop"))).status_code == 200


async def test_a_key_among_the_subprotocols_opens_a_stream_and_is_not_repeated(doors, face_photo):
    address = f"{doors['REST'].replace('http', 'ws', 1)}/v1/stream"
    offered = [STREAM_PROTOCOL, KEY_PROTOCOL + KEYS["shop"]]
    async with connect(address, subprotocols=offered, proxy=None) as websocket:
        assert websocket.subprotocol == STREAM_PROTOCOL
        await websocket.send(bytes(8) + face_photo)
        assert "analysis" in json.loads(await websocket.recv())
        assert KEYS["shop"] not in str(websocket.response.headers)


@pytest.mark.parametrize(
    ("offered", "headers", "reason"),
    [
        ([STREAM_PROTOCOL], {}, "UNAUTHENTICATED"),
        ([STREAM_PROTOCOL, KEY_PROTOCOL + "x" * 43], {}, "UNAUTHENTICATED"),
        ([STREAM_PROTOCOL, KEY_PROTOCOL + KEYS["lister"]], {}, "FORBIDDEN"),
        ([STREAM_PROTOCOL, KEY_PROTOCOL + KEYS["office"]], {}, "PURPOSE_REFUSED"),
        ([KEY_PROTOCOL + KEYS["shop"]], {"authorization": f"Bearer {KEYS['shop']}"}, "UNAUTHENTICATED"),
    ],
)
async def test_another_key_among_the_subprotocols_does_not(doors, offered, headers, reason):
    address = f"{doors['REST'].replace('http', 'ws', 1)}/v1/stream"
    async with connect(address, subprotocols=offered, additional_headers=headers, proxy=None) as websocket:
        assert json.loads(await websocket.recv())["error"]["reason"] == reason
        with pytest.raises(ConnectionClosed):
            await websocket.recv()


async def test_a_key_in_an_address_opens_nothing(doors):
    async with httpx.AsyncClient(base_url=doors["REST"]) as client:
        assert (await client.get(f"/v1/models?key={KEYS['shop']}&authorization={KEYS['shop']}")).status_code == 401


async def test_a_body_is_not_waited_for_without_a_key(doors):
    host, port = doors["REST"].removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = ("POST /v1/images:analyze HTTP/1.1", f"Host: {host}", "Content-Type: image/jpeg", "Content-Length: 1000000")
    writer.write("\r\n".join((*head, "", "")).encode())
    async with asyncio.timeout(10):
        assert await reader.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
    writer.close()


async def test_probes_and_health_ask_for_no_key_and_refusals_are_counted(doors, face_photo):
    await post(doors, face_photo)
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{doors['REST']}/readyz")).status_code == 200
        text = (await client.get(f"{doors['admin']}/metrics")).text
    assert 'ferserve_requests_total{code="UNAUTHENTICATED",method="/v1/images:analyze"} 1.0' in text


async def test_answers_carry_security_headers_and_other_sites_are_not_let_in(doors):
    async with httpx.AsyncClient(base_url=doors["REST"]) as client:
        answer = await client.get("/v1/models", headers=bearer("shop"))
        headers = {"origin": "https://example.org", "access-control-request-method": "POST"}
        preflight = await client.options("/v1/images:analyze", headers=headers)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"] == "default-src 'none'"
    assert preflight.status_code == 405
    assert not any(name.startswith("access-control") for name in (*answer.headers, *preflight.headers))


def test_the_command_prints_a_key_once_and_an_entry_that_knows_it():
    command = [str(FERSERVE), "key", "kiosk", "--purpose", "workplace", "--exemption", "safety"]
    command += ["--faces-per-minute", "60", "--expires", "2027-01-31", "--scope", "analyze"]
    environment = os.environ | {"COLUMNS": "200"}
    made = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, env=environment)
    (entry,) = tomllib.loads(made.stdout)["key"]
    assert entry.pop("sha256") == sha256_of(made.stderr.strip())
    assert json.loads(json.dumps(entry, default=str)) == {
        "name": "kiosk",
        "purpose": "workplace",
        "exemption": "safety",
        "scopes": ["analyze"],
        "faces_per_minute": 60,
        "expires": "2027-01-31",
    }
    assert made.stderr.strip() not in made.stdout


def test_the_command_names_what_is_wrong():
    command = [str(FERSERVE), "key", "kiosk", "--purpose", "retail", "--exemption", "safety"]
    wrong = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 2
    assert "exemption is for the purposes" in wrong.stderr
    assert wrong.stdout == ""
