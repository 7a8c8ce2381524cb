"""tritonclient, which nobody here wrote, talks to the real gateway over gRPC, asyncio gRPC and HTTP."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import jsonschema
import numpy as np
import pytest
import pytest_asyncio
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_aio
import tritonclient.http as triton_http
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from ferserve.faces.archive import read_archive
from ferserve.faces.decode import DecodeLimits
from ferserve.faces.labels import LABELS
from ferserve.faces.session import ScoringSession
from ferserve.serving.admin import AdminConfig
from ferserve.serving.admission import AdmissionConfig, Forecast
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.app import Gateway
from ferserve.serving.config import ServeConfig
from ferserve.serving.engine import Engine, ModelsConfig, open_archives, running_engine
from ferserve.serving.grpc_api import GrpcConfig
from ferserve.serving.metrics import Metrics
from ferserve.serving.rest_api import HttpConfig
from ferserve.serving.workers.embedded import EmbeddedConfig

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one gateway for all that leave it as it is
SIDE_PX = 24
NO_WAIT = Forecast(needed_s=0.0, left_s=10.0)
MODEL = "tiny"
INFER = "/inference.GRPCInferenceService/ModelInfer"
CROPS = np.random.default_rng(5).integers(0, 256, (3, SIDE_PX, SIDE_PX, 1), dtype=np.uint8)


@dataclass
class Served:
    """A running gateway."""

    engine: Engine
    gateway: Gateway

    @property
    def target(self) -> str:
        return self.gateway.addresses["gRPC"]

    @property
    def rest(self) -> str:
        return self.gateway.addresses["REST"]


@asynccontextmanager
async def serving(archive, **sections: Any) -> AsyncIterator[Served]:
    settings = {
        "models": ModelsConfig(archives=(str(archive),)),
        "grpc": GrpcConfig(port=0),
        "http": HttpConfig(port=0),
        "admin": AdminConfig(port=0),
        "analyzer": AnalyzerConfig(threads=1, max_crops=16),
        "embedded": EmbeddedConfig(threads=1),
    }
    config, metrics = ServeConfig(**{**settings, **sections}), Metrics()
    async with running_engine(config, open_archives(config.models), metrics) as engine:
        gateway = Gateway(config, engine, metrics)
        await gateway.start()
        try:
            yield Served(engine, gateway)
        finally:
            await gateway.stop(0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tiny_archive) -> AsyncIterator[Served]:
    async with serving(tiny_archive) as served:
        yield served


@pytest.fixture
def expected(tiny_archive) -> np.ndarray:
    """What the archive's graph says without any server."""
    return ScoringSession.from_archive(read_archive(tiny_archive), precision="fp32").score(CROPS)


class Blocking:
    """tritonclient over gRPC or HTTP, each call on a thread of its own as the library blocks."""

    def __init__(self, library: Any, served: Served) -> None:
        self.library = library
        self._address = served.target if library is triton_grpc else served.rest.removeprefix("http://")

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        def run() -> Any:
            client = self.library.InferenceServerClient(self._address)
            try:
                return getattr(client, method)(*args, **kwargs)
            finally:
                client.close()

        return await asyncio.to_thread(run)


class Asynchronous:
    """tritonclient over asyncio gRPC."""

    library = triton_aio

    def __init__(self, served: Served) -> None:
        self._target = served.target

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        async with triton_aio.InferenceServerClient(self._target) as client:
            return await getattr(client, method)(*args, **kwargs)


Caller = Blocking | Asynchronous
CALLERS: dict[str, Callable[[Served], Caller]] = {
    "grpc": lambda served: Blocking(triton_grpc, served),
    "grpc.aio": Asynchronous,
    "http": lambda served: Blocking(triton_http, served),
}


@pytest.fixture(params=CALLERS)
def caller(request, served) -> Caller:
    return CALLERS[request.param](served)


def tensor(library: Any, crops: np.ndarray, *, name: str = "crops", datatype: str = "UINT8") -> Any:
    came = library.InferInput(name, list(crops.shape), datatype)
    came.set_data_from_numpy(crops)
    return came


def as_dict(caller: Caller, answer: Any) -> Any:
    """gRPC's messages in the form that HTTP answers have."""
    if caller.library is triton_http:
        return answer
    return json.loads(triton_grpc._client.MessageToJson(answer, preserving_proto_field_name=True))


async def infer(caller: Caller, crops: np.ndarray = CROPS, *, model: str = MODEL, **options: Any) -> Any:
    inputs = options.pop("inputs", None) or [tensor(caller.library, crops)]
    return await caller.call("infer", model, inputs, **options)


async def refusal(attempt: Awaitable[Any]) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        await attempt
    return caught.value.status(), caught.value.message()


async def test_it_is_live_and_ready_and_says_what_it_is(caller):
    assert await caller.call("is_server_live")
    assert await caller.call("is_server_ready")
    assert await caller.call("is_model_ready", MODEL)
    assert await caller.call("is_model_ready", MODEL, "0.0.1")
    assert not await caller.call("is_model_ready", "absent")
    assert not await caller.call("is_model_ready", MODEL, "9")
    server = as_dict(caller, await caller.call("get_server_metadata"))
    assert server["name"] == "ferserve"
    assert "binary_tensor_data" in server["extensions"]


async def test_it_lists_and_describes_its_models(caller):
    index = as_dict(caller, await caller.call("get_model_repository_index"))
    listed = index if caller.library is triton_http else index["models"]
    assert [(model["name"], model["version"], model["state"]) for model in listed] == [(MODEL, "0.0.1", "READY")]
    described = as_dict(caller, await caller.call("get_model_metadata", MODEL))
    assert described["versions"] == ["0.0.1"]
    (takes,), (gives,) = described["inputs"], described["outputs"]
    assert (takes["name"], takes["datatype"], [int(size) for size in takes["shape"]]) == (
        "crops",
        "UINT8",
        [-1, 24, 24, 1],
    )
    assert (gives["name"], gives["datatype"], [int(size) for size in gives["shape"]]) == ("scores", "FP32", [-1, 7])


async def test_its_configuration_names_the_labels(caller):
    config = as_dict(caller, await caller.call("get_model_config", MODEL))
    config = config.get("config", config)
    assert config["parameters"]["labels"]["string_value"].split(",") == list(LABELS)
    assert [int(size) for size in config["input"][0]["dims"]] == [-1, 24, 24, 1]


@pytest.mark.parametrize("version", ["", "0.0.1"])
async def test_its_scores_are_the_graphs(caller, expected, version):
    result = await infer(caller, request_id="mine", model_version=version)
    np.testing.assert_allclose(result.as_numpy("scores"), expected, atol=1e-6)
    response = as_dict(caller, result.get_response())
    assert (response["id"], response["model_name"], response["model_version"]) == ("mine", MODEL, "0.0.1")
    assert {"archive_sha256", "preprocess_sha256", "precision", "total_ms"} <= set(response["parameters"])


async def test_http_takes_and_gives_json_as_well(served, expected):
    caller = Blocking(triton_http, served)
    crops = triton_http.InferInput("crops", list(CROPS.shape), "UINT8")
    crops.set_data_from_numpy(CROPS, binary_data=False)
    scores = triton_http.InferRequestedOutput("scores", binary_data=False)
    result = await infer(caller, inputs=[crops], outputs=[scores])
    np.testing.assert_allclose(result.as_numpy("scores"), expected, atol=1e-6)
    assert len(result.get_response()["outputs"][0]["data"]) == 21


async def test_grpc_takes_typed_contents_as_well(served, expected):
    request = pb.ModelInferRequest(model_name=MODEL)
    crops = request.inputs.add(name="crops", datatype="UINT8", shape=CROPS.shape)
    crops.contents.uint_contents.extend(CROPS.ravel().tolist())
    async with grpc.aio.insecure_channel(served.target) as channel:
        answer = pb.ModelInferResponse.FromString(await channel.unary_unary(INFER)(request.SerializeToString()))
    scores = np.frombuffer(answer.raw_output_contents[0], dtype=np.float32).reshape(3, 7)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def code(caller: Caller, grpc_code: grpc.StatusCode, http_status: int) -> str:
    return str(http_status) if caller.library is triton_http else str(grpc_code)


INVALID = (grpc.StatusCode.INVALID_ARGUMENT, 400)
MISSING = (grpc.StatusCode.NOT_FOUND, 404)


@pytest.mark.parametrize(
    ("crops", "wrong", "status", "words"),
    [
        (np.zeros((1, 8, 8, 1), np.uint8), {}, INVALID, r"shape of crops: expected [N, 24, 24, 1]"),
        (np.zeros((24, 24, 1), np.uint8), {}, INVALID, "got [24, 24, 1]"),
        (np.zeros((0, 24, 24, 1), np.uint8), {}, INVALID, "N of 1 or more"),
        (np.zeros((17, 24, 24, 1), np.uint8), {}, INVALID, "expected 1 to 16, got 17"),
        (np.zeros((1, 24, 24, 1), np.float32), {"datatype": "FP32"}, INVALID, "expected UINT8, got FP32"),
        (CROPS, {"name": "images"}, INVALID, "expected one tensor 'crops', got images"),
        (CROPS, {"model": "absent"}, MISSING, "expected one of tiny, got 'absent'"),
        (CROPS, {"model_version": "9"}, MISSING, "expected 0.0.1, got '9'"),
        (CROPS, {"output": "labels"}, INVALID, "expected 'scores', got 'labels'"),
        (CROPS, {"sequence_id": 3}, INVALID, "sequence_id"),
        (CROPS, {"class_count": 3}, INVALID, "classification"),
    ],
)
async def test_what_it_cannot_do_is_a_clear_error(caller, crops, wrong, status, words):
    library, wrong = caller.library, dict(wrong)
    given = {key: wrong.pop(key) for key in ("name", "datatype") if key in wrong}
    wanted = wrong.pop("output", None) or ("scores" if "class_count" in wrong else None)
    if wanted:
        wrong["outputs"] = [library.InferRequestedOutput(wanted, class_count=wrong.pop("class_count", 0))]
    came, message = await refusal(infer(caller, inputs=[tensor(library, crops, **given)], **wrong))
    assert came == code(caller, *status)
    assert words in message


async def test_time_that_runs_out_is_a_deadline(caller):
    came, message = await refusal(infer(caller, timeout=1))
    assert came == code(caller, grpc.StatusCode.DEADLINE_EXCEEDED, 504)
    assert "deadline" in message


async def test_a_full_house_refuses_with_the_time_to_come_back(tiny_archive):
    async with serving(tiny_archive, admission=AdmissionConfig(max_images=1)) as served:
        admission = served.engine.admission
        held = admission.admit(size_bytes=1, priority=0, forecast=NO_WAIT)
        with held:
            for make in CALLERS.values():
                caller = make(served)
                came, message = await refusal(infer(caller))
                assert came == code(caller, grpc.StatusCode.RESOURCE_EXHAUSTED, 429)
                assert "no room" in message
            async with httpx.AsyncClient(base_url=served.rest) as client:
                answer = await client.post(f"/v2/models/{MODEL}/infer", **in_json(CROPS))
            assert (answer.status_code, "retry-after" in answer.headers) == (429, True)


async def test_what_is_too_large_is_refused(tiny_archive):
    limits = {
        "decode": DecodeLimits(max_image_bytes=1024),
        "grpc": GrpcConfig(port=0, max_message_bytes=70_000),
        "http": HttpConfig(port=0, max_batch_bytes=70_000),
        "analyzer": AnalyzerConfig(threads=1),
    }
    crops = np.zeros((200, SIDE_PX, SIDE_PX, 1), np.uint8)
    async with serving(tiny_archive, **limits) as served:
        for make in CALLERS.values():
            caller = make(served)
            came, _ = await refusal(infer(caller, crops))
            assert came == code(caller, grpc.StatusCode.RESOURCE_EXHAUSTED, 413)


async def test_a_gateway_that_drains_is_live_but_takes_nothing(tiny_archive):
    async with serving(tiny_archive) as served:
        served.gateway._health.drain()
        for make in CALLERS.values():
            caller = make(served)
            assert await caller.call("is_server_live")
            assert not await caller.call("is_server_ready")
            assert not await caller.call("is_model_ready", MODEL)
            came, _ = await refusal(infer(caller))
            assert came == code(caller, grpc.StatusCode.UNAVAILABLE, 503)


async def test_what_is_not_offered_is_unimplemented(served):
    came, _ = await refusal(Asynchronous(served).call("load_model", MODEL))
    assert came == str(grpc.StatusCode.UNIMPLEMENTED)
    came, message = await refusal(Blocking(triton_http, served).call("load_model", MODEL))
    assert (came, "not found" in message) == ("404", True)


async def test_the_service_has_health_and_metrics(tiny_archive):
    name = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
    async with serving(tiny_archive) as served:
        await infer(Asynchronous(served))
        await infer(Blocking(triton_http, served))
        async with grpc.aio.insecure_channel(served.target) as channel:
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))
        async with httpx.AsyncClient(base_url=served.gateway.addresses["admin"]) as client:
            metrics = (await client.get("/metrics")).text
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert 'ferserve_requests_total{code="OK",method="ModelInfer"} 1.0' in metrics
    assert 'ferserve_requests_total{code="OK",method="/v2/models/{name}/infer"} 1.0' in metrics
    assert 'ferserve_faces_total{model="tiny"} 6.0' in metrics


def raw_request(**parts: Any) -> bytes:
    request = pb.ModelInferRequest(model_name=MODEL, **parts)
    request.inputs.add(name="crops", datatype="UINT8", shape=[1, SIDE_PX, SIDE_PX, 1])
    return request.SerializeToString()


def typed_and_raw() -> bytes:
    request = pb.ModelInferRequest.FromString(raw_request(raw_input_contents=[bytes(SIDE_PX**2)]))
    request.inputs[0].contents.uint_contents.extend([1])
    return request.SerializeToString()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff" * 20, "expected a message of ModelInfer"),
        (raw_request(), "expected 576 numbers, got 0"),
        (raw_request(raw_input_contents=[b"short"]), "expected 576 bytes, got 5"),
        (raw_request(raw_input_contents=[b"", b""]), "expected 1, one for each input, got 2"),
        (typed_and_raw(), "got both"),
        (pb.ModelInferRequest(model_name=MODEL).SerializeToString(), "expected one tensor 'crops', got none"),
    ],
)
async def test_malformed_messages_are_invalid(served, data, words):
    async with grpc.aio.insecure_channel(served.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(INFER)(data)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in caught.value.details()


def in_json(crops: np.ndarray, **changed: Any) -> dict[str, Any]:
    came = {"name": "crops", "datatype": "UINT8", "shape": crops.shape, "data": crops.tolist(), **changed}
    return {"content": json.dumps({"inputs": [came]})}


def in_binary(size_bytes: Any, binary: bytes, *, head_bytes: str | None = None) -> dict[str, Any]:
    came = {"name": "crops", "datatype": "UINT8", "shape": [1, SIDE_PX, SIDE_PX, 1]}
    head = json.dumps({"inputs": [{**came, "parameters": {"binary_data_size": size_bytes}}]}).encode()
    return {"content": head + binary, "headers": {"Inference-Header-Content-Length": head_bytes or str(len(head))}}


WHOLE = bytes(SIDE_PX**2)


@pytest.mark.parametrize(
    ("request_parts", "status", "words"),
    [
        ({"content": b"{"}, 400, "Invalid JSON"),
        ({"content": b"{}"}, 400, "inputs: Field required"),
        ({"content": b'{"inputs": [], "input": 1}'}, 400, "input: unknown"),
        (in_json(CROPS, data=None), 400, "got neither"),
        (in_json(CROPS, data=[[1], [1, 2]]), 400, "rows of equal lengths"),
        (in_json(CROPS, data=[256] * 1728), 400, "from 0 to 255"),
        (in_json(CROPS, data=[0.5] * 1728), 400, "whole numbers"),
        (in_json(CROPS, data=[2**70] * 1728), 400, "whole numbers"),
        (in_json(CROPS, data=["a"] * 1728), 400, "whole numbers"),
        (in_json(CROPS, parameters={"shared_memory_region": "r"}), 400, "shared_memory_region"),
        (in_json(CROPS, parameters={"binary_data_size": 4}), 400, "got both"),
        (in_binary(576, WHOLE[1:]), 400, "expected 576 bytes, the sum of binary_data_size, got 575"),
        (in_binary(575, WHOLE), 400, "got 576"),
        (in_binary(575, WHOLE[1:]), 400, "expected 576 bytes, got 575"),
        (in_binary("all", WHOLE), 400, "expected a number of bytes, got 'all'"),
        (in_binary(576, WHOLE, head_bytes="no"), 400, "expected a number of bytes, got 'no'"),
        (in_binary(576, WHOLE, head_bytes="100000"), 400, "got 100000"),
        (in_binary(576, WHOLE, head_bytes="9" * 30), 413, "expected at most 4194304"),
        ({"content": b"[" * 5_000_000}, 413, "expected at most 4194304 bytes"),
        ({"content": b"[" * 100_000}, 400, "JSON"),
        ({"content": b"x", "headers": {"Content-Encoding": "gzip"}}, 415, "expected none, got 'gzip'"),
        ({"content": b"x", "headers": {"X-Request-Timeout-Ms": "soon"}}, 400, "got 'soon'"),
    ],
)
async def test_malformed_bodies_are_told_what_is_wrong_in_the_protocols_form(served, request_parts, status, words):
    async with httpx.AsyncClient(base_url=served.rest) as client:
        answer = await client.post(f"/v2/models/{MODEL}/infer", **request_parts)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]


PATHS = {
    "/v2", "/v2/health/live", "/v2/health/ready", "/v2/repository/index",
    "/v2/models/{name}", "/v2/models/{name}/ready", "/v2/models/{name}/config", "/v2/models/{name}/infer",
    "/v2/models/{name}/versions/{version}", "/v2/models/{name}/versions/{version}/ready",
    "/v2/models/{name}/versions/{version}/config", "/v2/models/{name}/versions/{version}/infer",
}  # fmt: skip


async def test_every_path_and_each_of_its_answers_is_as_the_openapi_document_says(served):
    version = served.engine.analyzer.models()[0].version
    in_json = {"inputs": [{"name": "crops", "datatype": "UINT8", "shape": CROPS.shape, "data": CROPS.tolist()}]}
    async with httpx.AsyncClient(base_url=served.rest) as client:
        document = (await client.get("/openapi.json")).json()
        described = {path: found for path, found in document["paths"].items() if path.startswith("/v2")}
        assert set(described) == PATHS
        for path, operations in described.items():
            ((method, operation),) = operations.items()
            places = {place["name"] for place in operation.get("parameters", []) if place["in"] == "path"}
            assert places == set(re.findall(r"{(\w+)}", path))
            body = {"json": in_json} if path.endswith("/infer") else {}
            for name, codes in ((MODEL, {200}), ("no-such-model", {404, 503} if places else {200})):
                answer = await client.request(method, path.format(name=name, version=version), **body)
                assert answer.status_code in codes
                responses = operation["responses"]
                response = responses.get(str(answer.status_code), responses["default"])
                schema = response["content"]["application/json"]["schema"]
                jsonschema.validate(answer.json(), schema | {"components": document["components"]})


async def test_a_query_names_no_version(served):
    async with httpx.AsyncClient(base_url=served.rest) as client:
        assert (await client.get(f"/v2/models/{MODEL}?version=no-such-version")).status_code == 200
        assert (await client.get(f"/v2/models/{MODEL}/versions/no-such-version")).status_code == 404
