"""The Open Inference Protocol (v2), free of its two wires: the loaded archives as models of one tensor in, one out.

`oip_api` speaks it over gRPC, `oip_rest` over HTTP. A model takes `crops`, UINT8 of shape [-1, S, S, C], and gives
`scores`, FP32 of shape [-1, 7] in the order of `EXPRESSIONS`. Inference goes the way of every other request, so
admission, batching across requests, priorities and deadlines are the same.

Of the request's parameters `priority` (1 is interactive, more is bulk, 0 is the default) and `timeout` (microseconds)
have their effect. Parameters that ask for what cannot be done are errors, others are passed over, as the protocol has
it. Source: KServe, Open Inference Protocol 2.0; Triton's extensions `schedule_policy` and `binary_tensor_data`.
"""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.errors import InvalidRequestError
from ferserve.faces.labels import LABELS, NUM_EXPRESSIONS
from ferserve.serving.analyzer import Analyzer
from ferserve.serving.errors import ModelNotFoundError
from ferserve.serving.health import Health
from ferserve.serving.requests import AnalyzeOptions, CropScores, ModelInfo, ModelRef, Priority, RequestContext

SERVER_NAME: Final = "ferserve"
PLATFORM: Final = "ferserve_mar"
INPUT: Final = "crops"
OUTPUT: Final = "scores"
UINT8: Final = "UINT8"
FP32: Final = "FP32"
ANY_COUNT: Final = -1
EXTENSIONS: Final = ("binary_tensor_data", "model_configuration", "schedule_policy")
REFUSED_PARAMETERS: Final = ("sequence_id", "sequence_start", "sequence_end")
"""Every request stands for itself here."""
REFUSED_TENSOR_PARAMETERS: Final = ("shared_memory_region", "classification")
_US_PER_S: Final = 1_000_000
_BULK_FROM: Final = 2
"""Triton's 1 is the highest priority."""

Parameter = bool | int | float | str
Parameters = Mapping[str, Parameter]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """What a tensor of a model is; `ANY_COUNT` stands for the number of faces."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InputTensor:
    """One tensor of a request, as it came.

    Attributes:
        data: the bytes of the tensor in row-major order, or its numbers, flat or in rows.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    data: bytes | NDArray[np.generic]
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InferenceRequest:
    """One request, as it came.

    Attributes:
        version: empty for whichever is loaded.
        outputs: names and parameters of the tensors asked for; none stands for all.
    """

    model: str
    version: str
    inputs: Sequence[InputTensor]
    outputs: Sequence[tuple[str, Parameters]] = ()
    parameters: Parameters = field(default_factory=dict)


class InferenceProtocol:
    """Answers both wires' calls.

    Args:
        version: of the package.
    """

    def __init__(self, analyzer: Analyzer, health: Health, *, version: str) -> None:
        self._analyzer = analyzer
        self._health = health
        self.version = version

    @property
    def is_ready(self) -> bool:
        """Whether new requests are taken."""
        return self._health.is_ready

    def is_model_ready(self, name: str, version: str) -> bool:
        """Whether new requests for this model are taken; an unknown model is not ready."""
        try:
            self.model(name, version)
        except ModelNotFoundError:
            return False
        return self._health.is_ready

    def models(self) -> list[ModelInfo]:
        """The loaded models, the default one first."""
        return self._analyzer.models()

    def model(self, name: str, version: str) -> ModelInfo:
        """One loaded model.

        Raises:
            ModelNotFoundError: none has that name, or it is loaded in another version.
        """
        known = {model.name: model for model in self._analyzer.models()}
        if name not in known:  # the analyzer's empty name for the default model is no name here
            raise ModelNotFoundError(f"model: expected one of {', '.join(sorted(known))}, got {name!r}")
        if version not in ("", known[name].version):
            raise ModelNotFoundError(f"version of {name}: expected {known[name].version}, got {version!r}")
        return known[name]

    async def infer(self, request: InferenceRequest, context: RequestContext) -> CropScores:
        """Score the crops of one request.

        Raises:
            InvalidRequestError: the tensor, an output or a parameter is another than the model's.
            FerserveError: as for `Analyzer.score`.
        """
        model = self.model(request.model, request.version)
        _check_outputs(request.outputs)
        crops = _crops(request.inputs, input_spec(model))
        options = AnalyzeOptions(model=model.name, priority=_priority(request.parameters))
        deadline_s = _deadline_s(request.parameters, context)
        context = RequestContext(request_id=context.request_id, deadline_s=deadline_s)
        return await self._analyzer.score(crops, options, context)


def input_spec(model: ModelInfo) -> TensorSpec:
    """What a model takes."""
    shape = (ANY_COUNT, model.crop_size_px, model.crop_size_px, model.crop_channels)
    return TensorSpec(name=INPUT, datatype=UINT8, shape=shape)


def output_spec() -> TensorSpec:
    """What every model gives."""
    return TensorSpec(name=OUTPUT, datatype=FP32, shape=(ANY_COUNT, NUM_EXPRESSIONS))


def configuration(model: ModelInfo) -> dict[str, str]:
    """What a caller has to know to make crops and to read scores."""
    return {
        "labels": ",".join(LABELS),
        "uncertain_below": str(model.uncertain_below),
        "architecture": model.architecture,
        "paper": model.paper,
        **provenance(model),
    }


def provenance(model: ModelRef) -> dict[str, str]:
    """Which archive answers, by which pixel rules, and in what it computes."""
    return {
        "archive_sha256": model.archive_sha256,
        "preprocess_sha256": model.preprocess_sha256,
        "precision": model.precision,
    }


def answer_parameters(answer: CropScores) -> dict[str, str | float]:
    """What an answer says beside its scores."""
    timings = answer.timings
    return {
        **provenance(answer.model),
        "queue_ms": timings.queue_ms,
        "infer_ms": timings.infer_ms,
        "total_ms": timings.total_ms,
    }


def _check_outputs(outputs: Sequence[tuple[str, Parameters]]) -> None:
    for name, parameters in outputs:
        if name != OUTPUT:
            raise InvalidRequestError(f"outputs: expected {OUTPUT!r}, got {name[:64]!r}")
        _refuse(parameters, REFUSED_TENSOR_PARAMETERS, place=f"output {OUTPUT}")


def _crops(inputs: Sequence[InputTensor], spec: TensorSpec) -> NDArray[np.uint8]:
    names = [tensor.name[:64] for tensor in inputs]
    if names != [spec.name]:
        raise InvalidRequestError(f"inputs: expected one tensor {spec.name!r}, got {', '.join(names[:4]) or 'none'}")
    (tensor,) = inputs
    _refuse(tensor.parameters, REFUSED_TENSOR_PARAMETERS, place=f"input {spec.name}")
    if tensor.datatype != spec.datatype:
        raise InvalidRequestError(
            f"datatype of {spec.name}: expected {spec.datatype}, got {tensor.datatype[:64] or 'none'}"
        )
    shape = tuple(tensor.shape)
    if len(shape) != len(spec.shape) or shape[1:] != spec.shape[1:] or shape[0] < 1:
        raise InvalidRequestError(
            f"shape of {spec.name}: expected {_text(('N', *spec.shape[1:]))} with N of 1 or more, "
            f"got {_text(shape[:8])}"
        )
    return _pixels(tensor.data, shape, spec.name)


def _pixels(data: bytes | NDArray[np.generic], shape: tuple[int, ...], name: str) -> NDArray[np.uint8]:
    expected = math.prod(shape)
    if isinstance(data, bytes):
        if len(data) != expected:
            raise InvalidRequestError(f"data of {name}: expected {expected} bytes, got {len(data)}")
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)
    if data.size != expected:
        raise InvalidRequestError(f"data of {name}: expected {expected} numbers, got {data.size}")
    if data.dtype.kind not in "iu" or data.min() < 0 or data.max() > np.iinfo(np.uint8).max:
        raise InvalidRequestError(f"data of {name}: expected whole numbers from 0 to 255, got others")
    return data.astype(np.uint8).reshape(shape)


def _priority(parameters: Parameters) -> Priority:
    _refuse(parameters, REFUSED_PARAMETERS, place="request")
    level = _whole_number(parameters, "priority", default=0)
    return Priority.BULK if level >= _BULK_FROM else Priority.INTERACTIVE


def _deadline_s(parameters: Parameters, context: RequestContext) -> float | None:
    """The earlier of the call's own deadline and the `timeout` parameter's; 0 is Triton's word for none."""
    timeout_us = _whole_number(parameters, "timeout", default=0)
    if timeout_us == 0:
        return context.deadline_s
    until_s = asyncio.get_running_loop().time() + timeout_us / _US_PER_S
    return until_s if context.deadline_s is None else min(until_s, context.deadline_s)


def _whole_number(parameters: Parameters, name: str, *, default: int) -> int:
    value = parameters.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequestError(f"parameter {name}: expected a whole number of 0 or more, got {str(value)[:64]!r}")
    return value


def _refuse(parameters: Parameters, names: Sequence[str], *, place: str) -> None:
    for name in names:
        if name in parameters:
            raise InvalidRequestError(f"parameters of {place}: expected no {name}, which is not supported here")


def _text(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"
