"""The real gateway: a made-up archive, real servers on free loopback ports, real signals."""

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ferserve.faces.archive import read_archive
from ferserve.faces.cpu import read_cpu
from ferserve.faces.errors import ArchiveError
from ferserve.faces.precision import resolve_precision
from ferserve.serving.admin import AdminConfig
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.app import serve
from ferserve.serving.config import ServeConfig, ShutdownConfig
from ferserve.serving.engine import ModelsConfig, open_archives
from ferserve.serving.errors import StartError
from ferserve.serving.grpc_api import SERVICE_NAME, GrpcConfig
from ferserve.serving.rest_api import HttpConfig
from ferserve.serving.workers.embedded import EmbeddedConfig
from ferserve.v1 import expression_service_pb2 as service_pb
from ferserve.v1.expression_service_pb2_grpc import ExpressionServiceStub

FERSERVE = Path(sys.executable).with_name("ferserve")
FREE_PORTS = ("--grpc-port=0", "--http-port=0", "--admin-port=0")
JPEG = {"Content-Type": "image/jpeg"}


def config_for(archive, **sections) -> ServeConfig:
    return ServeConfig(
        **{
            "models": ModelsConfig(archives=(str(archive),)),
            "grpc": GrpcConfig(port=0),
            "http": HttpConfig(port=0),
            "admin": AdminConfig(port=0),
            "analyzer": AnalyzerConfig(threads=1),
            "embedded": EmbeddedConfig(threads=1),
            **sections,
        }
    )


class Announced:
    """The lines that the gateway prints, by their first word, and a moment when they are all there."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self.complete = asyncio.Event()

    def __call__(self, line: str) -> None:
        name, address = line.split(" ")
        self.addresses[name] = address
        if len(self.addresses) == 3:
            self.complete.set()


@asynccontextmanager
async def gateway(config: ServeConfig):
    """Addresses of a running gateway, and the event that stops it."""
    announced, stop = Announced(), asyncio.Event()
    running = asyncio.create_task(serve(config, open_archives(config.models), announced, stop))
    ready = asyncio.create_task(announced.complete.wait())
    await asyncio.wait((running, ready), return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    try:
        if running.done():
            running.result()
        yield announced.addresses, stop
    finally:
        stop.set()
        await running


@pytest.fixture
async def running(tiny_archive):
    async with gateway(config_for(tiny_archive)) as (addresses, _):
        yield addresses


def without_timings(answer: dict) -> dict:
    return {name: value for name, value in answer.items() if name != "timings"}


async def test_a_real_photo_gets_the_same_answer_over_both_protocols(running, face_photo, tiny_archive):
    async with httpx.AsyncClient(base_url=running["REST"]) as client:
        over_rest = (await client.post("/v1/images:analyze", content=face_photo, headers=JPEG)).json()
    async with grpc.aio.insecure_channel(running["gRPC"]) as channel:
        reply = await ExpressionServiceStub(channel).Analyze(service_pb.AnalyzeRequest(image=face_photo))
    (face,) = over_rest["faces"]
    (pb_face,) = reply.analysis.faces
    assert sum(face["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert face["scores"] == pytest.approx({name: getattr(pb_face.scores, name) for name in face["scores"]}, abs=1e-6)
    assert over_rest["model"]["archive_sha256"] == hashlib.sha256(tiny_archive.read_bytes()).hexdigest()
    assert reply.analysis.model.archive_sha256 == over_rest["model"]["archive_sha256"]
    assert (over_rest["width_px"], over_rest["height_px"]) == (512, 512)
    assert all(value >= 0 for value in over_rest["timings"].values())


async def test_every_way_in_gives_the_same_answer(running, face_photo):
    async with httpx.AsyncClient(base_url=running["REST"]) as client:
        raw = await client.post("/v1/images:analyze", content=face_photo, headers=JPEG)
        batch = await client.post("/v1/images:batchAnalyze", files=[("images", face_photo), ("images", b"no picture")])
    good, bad = batch.json()["items"]
    assert without_timings(good["analysis"]) == without_timings(raw.json())
    assert bad["error"]["reason"] == "UNSUPPORTED_MEDIA"


async def test_operators_see_what_callers_did(running, face_photo):
    async with httpx.AsyncClient(base_url=running["REST"]) as client:
        await client.post("/v1/images:analyze", content=face_photo, headers=JPEG)
    async with grpc.aio.insecure_channel(running["gRPC"]) as channel:
        await ExpressionServiceStub(channel).Analyze(service_pb.AnalyzeRequest(image=face_photo))
    async with httpx.AsyncClient(base_url=running["admin"]) as client:
        metrics = (await client.get("/metrics")).text
        status = (await client.get("/status")).json()
    assert 'ferserve_requests_total{code="OK",method="/v1/images:analyze"} 1.0' in metrics
    assert 'ferserve_requests_total{code="OK",method="Analyze"} 1.0' in metrics
    assert (status["state"], status["detector"]) == ("ready", "ferdet")


async def test_the_first_archive_answers_and_the_others_go_by_name(tiny_archive, pack_archive, face_photo):
    archives = (str(tiny_archive), str(pack_archive("other")))
    async with (
        gateway(config_for(tiny_archive, models=ModelsConfig(archives=archives))) as (addresses, _),
        httpx.AsyncClient(base_url=addresses["REST"]) as client,
    ):
        answers = [
            await client.post(f"/v1/images:analyze{query}", content=face_photo, headers=JPEG)
            for query in ("", "?model=other", "?model=absent")
        ]
        listed = (await client.get("/v1/models")).json()["models"]
    assert [answer.json()["model"]["name"] for answer in answers[:2]] == ["tiny", "other"]
    assert answers[2].status_code == 404
    assert [(model["ref"]["name"], model["is_default"]) for model in listed] == [("tiny", True), ("other", False)]


async def test_both_protocols_and_the_operators_see_which_precision_runs(both_precisions, face_photo):
    here = resolve_precision("auto", read_archive(both_precisions), read_cpu())
    for choice, runs in (("auto", here), ("fp32", "fp32")):
        models = ModelsConfig(archives=(str(both_precisions),), precision=choice)
        async with gateway(config_for(both_precisions, models=models)) as (addresses, _), httpx.AsyncClient() as client:
            answer = await client.post(f"{addresses['REST']}/v1/images:analyze", content=face_photo, headers=JPEG)
            (listed,) = (await client.get(f"{addresses['REST']}/v1/models")).json()["models"]
            (model,) = (await client.get(f"{addresses['admin']}/status")).json()["models"]
            async with grpc.aio.insecure_channel(addresses["gRPC"]) as channel:
                described = await ExpressionServiceStub(channel).GetModel(service_pb.GetModelRequest())
        assert answer.json()["model"]["precision"] == listed["ref"]["precision"] == model["precision"] == runs
        assert described.model.ref.precision == runs


def test_two_archives_of_one_name_are_refused(tiny_archive):
    with pytest.raises(StartError, match="'tiny' twice"):
        open_archives(ModelsConfig(archives=(str(tiny_archive), str(tiny_archive))))


async def health_over_grpc(address: str) -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=SERVICE_NAME)
        return (await health_pb2_grpc.HealthStub(channel).Check(request)).status


async def sent_half_of(photo: bytes, address: str):
    """A request that is accepted and waits for the rest of its body."""
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = ("POST /v1/images:analyze HTTP/1.1", "Host: x", "Expect: 100-continue", f"Content-Length: {len(photo)}")
    writer.write("\r\n".join((*lines, "", "")).encode())
    assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"  # its body is being read, so it is accepted
    assert await reader.readline() == b"\r\n"
    return reader, writer


async def test_a_drain_refuses_what_is_new_and_finishes_what_was_accepted(tiny_archive, face_photo):
    async with gateway(config_for(tiny_archive)) as (addresses, stop):
        assert await health_over_grpc(addresses["gRPC"]) == health_pb2.HealthCheckResponse.SERVING
        reader, writer = await sent_half_of(face_photo, addresses["REST"])
        async with httpx.AsyncClient() as client:
            stop.set()
            while (await client.get(f"{addresses['admin']}/readyz")).status_code == 200:
                pass
            refused = await client.post(f"{addresses['REST']}/v1/images:analyze", content=face_photo, headers=JPEG)
        assert (refused.status_code, refused.json()["error"]["reason"]) == (503, "NOT_READY")
        async with grpc.aio.insecure_channel(addresses["gRPC"]) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await ExpressionServiceStub(channel).Analyze(service_pb.AnalyzeRequest(image=face_photo))
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await health_over_grpc(addresses["gRPC"]) == health_pb2.HealthCheckResponse.NOT_SERVING
        writer.write(face_photo)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b'"expression":"EXPRESSION_' in answer
        writer.close()
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        await asyncio.open_connection(*addresses["REST"].removeprefix("http://").split(":"))


async def test_a_drain_does_not_wait_for_ever(tiny_archive, face_photo):
    config = config_for(tiny_archive, shutdown=ShutdownConfig(drain_timeout_s=0.05))
    async with gateway(config) as (addresses, stop):
        reader, writer = await sent_half_of(face_photo, addresses["REST"])
        stop.set()
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"reason":"NOT_READY"' in answer
        writer.close()


@pytest.mark.parametrize("section", ["grpc", "http", "admin"])
async def test_a_taken_port_is_an_error_that_names_it(tiny_archive, section):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        kind = {"grpc": GrpcConfig, "http": HttpConfig, "admin": AdminConfig}[section]
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1 port {port}"):
            async with gateway(config_for(tiny_archive, **{section: kind(port=port)})):
                pass


async def test_an_address_of_another_machine_is_an_error(tiny_archive):
    with pytest.raises(StartError, match=r"cannot listen on 192\.0\.2\.1"):
        async with gateway(config_for(tiny_archive, http=HttpConfig(host="192.0.2.1"))):
            pass


async def test_a_graph_that_does_not_run_is_noticed_before_any_port_opens(pack_archive):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = config_for(pack_archive("broken", b"no graph"), http=HttpConfig(port=taken.getsockname()[1]))
        with pytest.raises(ArchiveError, match=r"model\.onnx"):
            async with gateway(config):
                pass


def ferserve(*arguments: str, **options) -> subprocess.Popen[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FERSERVE_")}
    return subprocess.Popen(
        [FERSERVE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ, **options
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_cleanly(tiny_archive, number):
    with ferserve("serve", f"--model={tiny_archive}", "--threads=1", *FREE_PORTS) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(number)
        rest, logs = process.communicate(timeout=30)
    assert [line.split(" ")[0] for line in lines] == ["gRPC", "REST", "admin"]
    assert process.returncode == 0
    assert rest == ""
    assert "Traceback" not in logs


def test_a_taken_port_ends_the_process_with_one_line(tiny_archive):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with ferserve("serve", f"--model={tiny_archive}", "--grpc-port=0", f"--http-port={port}") as process:
            out, logs = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert logs == f"ferserve: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


def test_a_missing_archive_is_named_and_the_exit_code_is_one(tmp_path):
    with ferserve("serve", f"--model={tmp_path}/absent.mar", *FREE_PORTS) as process:
        out, logs = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert "absent.mar" in logs
    assert "Traceback" not in logs


def test_an_altered_archive_is_named_with_both_hashes(tiny_archive):
    expected = "0" * 64
    with ferserve("serve", f"--model={tiny_archive}", f"--sha256={expected}", *FREE_PORTS) as process:
        out, logs = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert expected in logs
    assert hashlib.sha256(tiny_archive.read_bytes()).hexdigest() in logs
    assert "Traceback" not in logs
