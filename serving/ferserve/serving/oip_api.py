"""`inference.GRPCInferenceService`: the Open Inference Protocol over gRPC, for tritonclient and all that speak it.

The messages are tritonclient's own generated ones: a process may hold one copy of a protocol buffer only, and a program
that uses ferserve may well use tritonclient too. Methods that are not in `add_inference_service` (repository load and
unload, statistics, shared memory, tracing, streams) stay UNIMPLEMENTED.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import grpc
import numpy as np
from tritonclient.grpc import model_config_pb2 as config_pb
from tritonclient.grpc import service_pb2 as pb

from ferserve.faces.errors import InvalidRequestError
from ferserve.serving.grpc_calls import current_call
from ferserve.serving.grpc_requests import Context
from ferserve.serving.oip import (
    EXTENSIONS,
    PLATFORM,
    SERVER_NAME,
    InferenceProtocol,
    InferenceRequest,
    InputTensor,
    Parameter,
    TensorSpec,
    answer_parameters,
    configuration,
    input_spec,
    output_spec,
)
from ferserve.serving.requests import CropScores, RequestContext

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
OIP_SERVICE_NAME: Final = _SERVICE.full_name
READY: Final = "READY"
_BYTES_OF_UINT8: Final = "uint_contents"
"""Where the protocol puts UINT8 in a tensor that is not raw: one uint32 a number."""

Answer = Callable[[Any, RequestContext], Awaitable[Any]]


def add_inference_service(protocol: InferenceProtocol, server: Any) -> None:
    """Add the protocol's calls to a server, or to what takes its place."""
    methods = _Methods(protocol)
    answers = {
        "ServerLive": methods.server_live,
        "ServerReady": methods.server_ready,
        "ModelReady": methods.model_ready,
        "ServerMetadata": methods.server_metadata,
        "ModelMetadata": methods.model_metadata,
        "ModelConfig": methods.model_config,
        "RepositoryIndex": methods.repository_index,
        "ModelInfer": methods.model_infer,
    }
    handlers = {name: _handler(name, answer) for name, answer in answers.items()}
    server.add_registered_method_handlers(OIP_SERVICE_NAME, handlers)


class _Methods:
    """What each method answers; errors are raised."""

    def __init__(self, protocol: InferenceProtocol) -> None:
        self._protocol = protocol

    async def server_live(self, _request: Any, _call: RequestContext) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, _request: Any, _call: RequestContext) -> Any:
        return pb.ServerReadyResponse(ready=self._protocol.is_ready)

    async def model_ready(self, request: Any, _call: RequestContext) -> Any:
        return pb.ModelReadyResponse(ready=self._protocol.is_model_ready(request.name, request.version))

    async def server_metadata(self, _request: Any, _call: RequestContext) -> Any:
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=self._protocol.version, extensions=EXTENSIONS)

    async def model_metadata(self, request: Any, _call: RequestContext) -> Any:
        model = self._protocol.model(request.name, request.version)
        return pb.ModelMetadataResponse(
            name=model.name,
            versions=[model.version],
            platform=PLATFORM,
            inputs=[_metadata(input_spec(model))],
            outputs=[_metadata(output_spec())],
        )

    async def model_config(self, request: Any, _call: RequestContext) -> Any:
        model = self._protocol.model(request.name, request.version)
        takes, gives = input_spec(model), output_spec()
        config = config_pb.ModelConfig(
            name=model.name,
            platform=PLATFORM,
            input=[
                config_pb.ModelInput(name=takes.name, data_type=f"TYPE_{takes.datatype}", dims=takes.shape),
            ],
            output=[
                config_pb.ModelOutput(name=gives.name, data_type=f"TYPE_{gives.datatype}", dims=gives.shape),
            ],
        )
        for name, value in configuration(model).items():
            config.parameters[name].string_value = value
        return pb.ModelConfigResponse(config=config)

    async def repository_index(self, _request: Any, _call: RequestContext) -> Any:
        index = [
            pb.RepositoryIndexResponse.ModelIndex(name=model.name, version=model.version, state=READY)
            for model in self._protocol.models()
        ]
        return pb.RepositoryIndexResponse(models=index)

    async def model_infer(self, request: Any, call: RequestContext) -> Any:
        came = _request_from_pb(request)
        request_id = request.id
        del request  # it holds the tensor once more
        return _answer_to_pb(await self._protocol.infer(came, call), request_id)


def _handler(name: str, answer: Answer) -> Any:
    method = _SERVICE.methods_by_name[name]
    request, response = (getattr(pb, message.name) for message in (method.input_type, method.output_type))

    async def call(request: Any, _context: Context) -> Any:
        answering = answer(request, current_call())
        del request
        return await answering

    return grpc.unary_unary_rpc_method_handler(
        call, request_deserializer=request.FromString, response_serializer=response.SerializeToString
    )


def _metadata(spec: TensorSpec) -> Any:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)


def _request_from_pb(request: Any) -> InferenceRequest:
    return InferenceRequest(
        model=request.model_name,
        version=request.model_version,
        inputs=_inputs(request.inputs, request.raw_input_contents),
        outputs=[(output.name, _parameters(output.parameters)) for output in request.outputs],
        parameters=_parameters(request.parameters),
    )


def _inputs(tensors: Sequence[Any], raw: Sequence[bytes]) -> list[InputTensor]:
    """The tensors with their data, which comes beside them or in them, but for all of them the same way.

    Raises:
        InvalidRequestError: it comes both ways, or not for every tensor.
    """
    if raw and len(raw) != len(tensors):
        raise InvalidRequestError(f"raw_input_contents: expected {len(tensors)}, one for each input, got {len(raw)}")
    if raw and any(tensor.HasField("contents") for tensor in tensors):
        raise InvalidRequestError("inputs: expected their data in raw_input_contents or in contents, got both")
    return [
        InputTensor(
            name=tensor.name,
            datatype=tensor.datatype,
            shape=tensor.shape,
            data=raw[index] if raw else np.array(getattr(tensor.contents, _BYTES_OF_UINT8), dtype=np.uint32),
            parameters=_parameters(tensor.parameters),
        )
        for index, tensor in enumerate(tensors)
    ]


def _parameters(came: Any) -> dict[str, Parameter]:
    return {
        name: getattr(value, kind) for name, value in came.items() if (kind := value.WhichOneof("parameter_choice"))
    }


def _answer_to_pb(answer: CropScores, request_id: str) -> Any:
    tensor = pb.ModelInferResponse.InferOutputTensor(
        name=output_spec().name, datatype=output_spec().datatype, shape=answer.scores.shape
    )
    response = pb.ModelInferResponse(
        model_name=answer.model.name,
        model_version=answer.model.version,
        id=request_id,
        outputs=[tensor],
        raw_output_contents=[answer.scores.astype("<f4").tobytes()],
    )
    for name, value in answer_parameters(answer).items():
        if isinstance(value, str):
            response.parameters[name].string_param = value
        else:
            response.parameters[name].double_param = value
    return response
