"""The Open Inference Protocol over HTTP, under `/v2`: JSON, or JSON with tensors in binary behind it.

In the binary form, Triton's extension `binary_tensor_data`, the header `Inference-Header-Content-Length` says how many
bytes of the body are JSON; what follows are the tensors whose parameters name a `binary_data_size`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final

import numpy as np
import orjson
from fastapi import Depends, FastAPI
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from ferserve.faces.errors import ImageTooLargeError, InvalidRequestError, UnsupportedMediaError
from ferserve.serving.access import Gate
from ferserve.serving.health import Health
from ferserve.serving.oip import (
    EXTENSIONS,
    OUTPUT,
    PLATFORM,
    SERVER_NAME,
    InferenceProtocol,
    InferenceRequest,
    InputTensor,
    TensorSpec,
    answer_parameters,
    configuration,
    input_spec,
    output_spec,
)
from ferserve.serving.oip_schema import (
    InferenceReply,
    InferenceRequestMessage,
    InputTensorMessage,
    LiveReply,
    ModelConfigurationReply,
    ModelIndexMessage,
    ModelMetadataReply,
    ProtocolErrorMessage,
    ReadyReply,
    ServerMetadataReply,
)
from ferserve.serving.purposes import Scope
from ferserve.serving.requests import CropScores
from ferserve.serving.rest_body import RAW, BodyReader
from ferserve.serving.rest_calls import request_context, unless_caller_leaves
from ferserve.serving.rest_errors import JSON_TYPE, OIP_PREFIX, validation_message
from ferserve.serving.rest_gate import asking
from ferserve.serving.rest_openapi import inference_body, path_parameter

HEAD_LENGTH: Final = "Inference-Header-Content-Length"
MAX_JSON_BYTES: Final = 4 * 2**20
"""Of a body's JSON: every number in it becomes an object on the event loop. Larger tensors go in binary."""

Responses = dict[int | str, dict[str, Any]]


def _version(request: Request) -> str:
    """The path's own; empty where the path names none, so that a query cannot."""
    return str(request.path_params.get("version", ""))


Version = Annotated[str, Depends(_version)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What a body held: the request, and the form of its answer."""

    request: InferenceRequest
    request_id: str
    in_binary: bool


def add_inference_routes(
    app: FastAPI,
    protocol: InferenceProtocol,
    health: Health,
    reader: BodyReader,
    *,
    max_tensor_bytes: int,
    gate: Gate,
) -> None:
    """Let an application answer the protocol's paths.

    Args:
        max_tensor_bytes: most bytes of the tensors of one body together.
        gate: asked about every request but those that ask whether the server is there.
    """
    routes = _Routes(protocol, health, reader, max_tensor_bytes)
    errors: Responses = {"default": {"model": ProtocolErrorMessage, "description": "No answer"}}
    not_ready: Responses = errors | {503: {"model": ReadyReply, "description": "Not ready"}}
    add = partial(app.add_api_route, tags=["Open Inference Protocol"], responses=errors)
    add(OIP_PREFIX, routes.server_metadata, response_model=ServerMetadataReply)
    add(f"{OIP_PREFIX}/health/live", routes.server_live, response_model=LiveReply)
    add(f"{OIP_PREFIX}/health/ready", routes.server_ready, response_model=ReadyReply, responses=not_ready)
    listing, inferring = ([Depends(asking(gate, scope))] for scope in (Scope.MODELS, Scope.ANALYZE))
    index = f"{OIP_PREFIX}/repository/index"
    add(index, routes.repository_index, methods=["POST"], dependencies=listing, response_model=list[ModelIndexMessage])
    model = f"{OIP_PREFIX}/models/{{name}}"
    for place, parameters in ((model, []), (f"{model}/versions/{{version}}", [path_parameter("version")])):
        said = {"parameters": parameters}
        asked = partial(add, dependencies=listing, openapi_extra=said)
        asked(place, routes.model_metadata, response_model=ModelMetadataReply)
        asked(f"{place}/ready", routes.model_ready, response_model=ReadyReply, responses=not_ready)
        asked(f"{place}/config", routes.model_config, response_model=ModelConfigurationReply)
        add(
            f"{place}/infer",
            routes.infer,
            methods=["POST"],
            dependencies=inferring,
            response_model=InferenceReply,
            openapi_extra=inference_body(InferenceRequestMessage, HEAD_LENGTH, parameters),
        )


class _Routes:
    """The paths; errors are raised."""

    def __init__(self, protocol: InferenceProtocol, health: Health, reader: BodyReader, max_tensor_bytes: int) -> None:
        self._protocol = protocol
        self._health = health
        self._reader = reader
        self._max_tensor_bytes = max_tensor_bytes

    async def server_live(self) -> Response:
        """Whether the server runs."""
        return _json({"live": True})

    async def server_ready(self) -> Response:
        """Whether the server would score now."""
        return _readiness(is_ready=self._protocol.is_ready)

    async def model_ready(self, name: str, version: Version) -> Response:
        """Whether the model would score now."""
        return _readiness(is_ready=self._protocol.is_model_ready(name, version))

    async def server_metadata(self) -> Response:
        """Who answers, and in which extensions of the protocol."""
        with self._health.accept():
            return _json({"name": SERVER_NAME, "version": self._protocol.version, "extensions": EXTENSIONS})

    async def repository_index(self) -> Response:
        """The models that are there; Triton's extension."""
        with self._health.accept():
            models = self._protocol.models()
            return _json([{"name": model.name, "version": model.version, "state": "READY"} for model in models])

    async def model_metadata(self, name: str, version: Version) -> Response:
        """What the model takes and gives."""
        with self._health.accept():
            model = self._protocol.model(name, version)
            return _json(
                {
                    "name": model.name,
                    "versions": [model.version],
                    "platform": PLATFORM,
                    "inputs": [_metadata(input_spec(model))],
                    "outputs": [_metadata(output_spec())],
                }
            )

    async def model_config(self, name: str, version: Version) -> Response:
        """The model's configuration; Triton's extension."""
        with self._health.accept():
            model = self._protocol.model(name, version)
            return _json(
                {
                    "name": model.name,
                    "platform": PLATFORM,
                    "max_batch_size": 0,
                    "input": [_tensor_config(input_spec(model))],
                    "output": [_tensor_config(output_spec())],
                    "parameters": {key: {"string_value": value} for key, value in configuration(model).items()},
                }
            )

    async def infer(self, request: Request, name: str, version: Version) -> Response:
        """Score crops that come as a tensor."""
        context = request_context(request)
        with self._health.accept():
            self._protocol.model(name, version)  # before a large body comes for nothing
            head_bytes = _head_bytes(request)
            max_bytes = MAX_JSON_BYTES if head_bytes is None else head_bytes + self._max_tensor_bytes
            parse = partial(_asked, name=name, version=version, head_bytes=head_bytes)
            async with self._reader.read(request, parse, max_bytes=max_bytes, deadline_s=context.deadline_s) as asked:
                answer = await unless_caller_leaves(request, self._protocol.infer(asked.request, context))
        return _answer(answer, asked)


def _head_bytes(request: Request) -> int | None:
    """How much of the body is JSON; None for all of it.

    Raises:
        UnsupportedMediaError: the body is compressed.
        InvalidRequestError: the header is no number.
        ImageTooLargeError: the JSON is too long.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnsupportedMediaError(f"content encoding: expected none, got {encoding[:32]!r}")
    text = request.headers.get(HEAD_LENGTH)
    if text is None:
        return None
    if not text.isdecimal() or not text.isascii():
        raise InvalidRequestError(f"{HEAD_LENGTH}: expected a number of bytes, got {text[:32]!r}")
    if len(text) > len(str(MAX_JSON_BYTES)) or int(text) > MAX_JSON_BYTES:
        raise ImageTooLargeError(f"{HEAD_LENGTH}: expected at most {MAX_JSON_BYTES}, got {text[:32]}")
    return int(text)


def _asked(body: bytes, *, name: str, version: str, head_bytes: int | None) -> _Asked:
    """Take a body apart.

    Raises:
        InvalidRequestError: it is no such JSON, or its binary part is of another length than it says.
    """
    head, binary = (body, b"") if head_bytes is None else (body[:head_bytes], body[head_bytes:])
    if head_bytes is not None and len(head) < head_bytes:
        raise InvalidRequestError(f"{HEAD_LENGTH}: expected at most the body's {len(body)} bytes, got {head_bytes}")
    try:
        message = InferenceRequestMessage.model_validate_json(head)
    except ValidationError as error:
        raise InvalidRequestError(validation_message(error.errors(include_url=False, include_input=False))) from None
    request = InferenceRequest(
        model=name,
        version=version,
        inputs=_inputs(message.inputs, binary),
        outputs=[(output.name, output.parameters) for output in message.outputs],
        parameters=message.parameters,
    )
    by_default = message.parameters.get("binary_data_output", False)
    in_binary = any(output.parameters.get("binary_data", by_default) for output in message.outputs)
    return _Asked(request=request, request_id=message.id, in_binary=in_binary if message.outputs else bool(by_default))


def _inputs(tensors: Sequence[InputTensorMessage], binary: bytes) -> list[InputTensor]:
    inputs, taken = [], 0
    for tensor in tensors:
        size_bytes = tensor.parameters.get("binary_data_size")
        if size_bytes is None:
            inputs.append(_with(tensor, _numbers(tensor)))
            continue
        if isinstance(size_bytes, bool) or not isinstance(size_bytes, int) or size_bytes < 0:
            raise InvalidRequestError(f"binary_data_size: expected a number of bytes, got {str(size_bytes)[:32]!r}")
        if tensor.data is not None:
            raise InvalidRequestError(f"input {tensor.name[:64]}: expected data or binary_data_size, got both")
        inputs.append(_with(tensor, binary[taken : taken + size_bytes]))
        taken += size_bytes
    if taken != len(binary):
        raise InvalidRequestError(
            f"binary part of the body: expected {taken} bytes, the sum of binary_data_size, got {len(binary)}"
        )
    return inputs


def _with(tensor: InputTensorMessage, data: Any) -> InputTensor:
    return InputTensor(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, data=data, parameters=tensor.parameters
    )


def _numbers(tensor: InputTensorMessage) -> Any:
    """The numbers of a tensor in JSON, flat or in rows."""
    if tensor.data is None:
        raise InvalidRequestError(f"input {tensor.name[:64]}: expected data or binary_data_size, got neither")
    try:
        return np.array(tensor.data)
    except ValueError:  # numpy's words for rows of unequal lengths
        raise InvalidRequestError(f"data of {tensor.name[:64]}: expected rows of equal lengths, got others") from None


def _answer(answer: CropScores, asked: _Asked) -> Response:
    spec = output_spec()
    tensor: dict[str, Any] = {"name": OUTPUT, "datatype": spec.datatype, "shape": answer.scores.shape}
    whole = {
        "model_name": answer.model.name,
        "model_version": answer.model.version,
        "parameters": answer_parameters(answer),
        "outputs": [tensor],
    }
    if asked.request_id:
        whole["id"] = asked.request_id
    if not asked.in_binary:
        tensor["data"] = answer.scores.ravel()
        return _json(whole)
    binary = answer.scores.astype("<f4").tobytes()
    tensor["parameters"] = {"binary_data_size": len(binary)}
    head = orjson.dumps(whole)
    return Response(head + binary, headers={HEAD_LENGTH: str(len(head))}, media_type=RAW)


def _metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}


def _tensor_config(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": f"TYPE_{spec.datatype}", "dims": spec.shape}


def _readiness(*, is_ready: bool) -> Response:
    return _json({"ready": is_ready}, status_code=200 if is_ready else 503)


def _json(content: Any, *, status_code: int = 200) -> Response:
    text = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(text, status_code=status_code, media_type=JSON_TYPE)
