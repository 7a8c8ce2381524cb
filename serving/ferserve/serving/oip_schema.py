"""The JSON of the Open Inference Protocol: bodies that are read, and answers as the OpenAPI document describes them.

The protocol's own words are its specification's; what only this server does is said here.
"""

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

MAX_TENSORS: Final = 8
MAX_RANK: Final = 8

Parameters = dict[str, bool | int | float | str]
Dimension = Annotated[int, Field(strict=True)]
Shape = Annotated[list[int], Field(description="-1 stands for any length.")]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputTensorMessage(_Message):
    """A tensor that comes; its numbers in `data`, flat or in rows, or as `binary_data_size` bytes behind the JSON."""

    name: str
    datatype: str
    shape: Annotated[list[Dimension], Field(max_length=MAX_RANK)]
    parameters: Parameters = Field(default_factory=dict)
    data: list[Any] | None = None


class OutputNameMessage(_Message):
    """A tensor that is asked for; with the parameter `binary_data` in binary form."""

    name: str
    parameters: Parameters = Field(default_factory=dict)


class InferenceRequestMessage(_Message):
    """Crops to be scored: one input `crops`, UINT8 [-1, S, S, C]; S and C as the model's metadata says."""

    id: str = ""
    parameters: Parameters = Field(default_factory=dict)
    inputs: Annotated[list[InputTensorMessage], Field(max_length=MAX_TENSORS)]
    outputs: Annotated[list[OutputNameMessage], Field(max_length=MAX_TENSORS)] = []


class OutputTensorMessage(_Message):
    """A tensor of the answer; `data` is flat, and absent where the tensor stands behind the JSON."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters = Field(default_factory=dict)
    data: list[float] = Field(default_factory=list)


class InferenceReply(_Message):
    """Scores: one output `scores`, FP32 [-1, 7], in the order of the model's `labels`; each row sums to 1."""

    model_name: str
    model_version: str
    id: str = Field("", description="The request's own; absent where it had none.")
    parameters: Parameters = Field(default_factory=dict)
    outputs: list[OutputTensorMessage]


class TensorMetadataMessage(_Message):
    """What a tensor looks like."""

    name: str
    datatype: str
    shape: Shape


class ModelMetadataReply(_Message):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadataMessage]
    outputs: list[TensorMetadataMessage]


class TensorConfigurationMessage(_Message):
    """What a tensor looks like, in the words of Triton's configuration."""

    name: str
    data_type: str
    dims: Shape


class ParameterMessage(_Message):
    """A value of a configuration, as text."""

    string_value: str


class ModelConfigurationReply(_Message):
    """Triton's extension: the model's configuration; `parameters` say what ferserve's own API says of it."""

    name: str
    platform: str
    max_batch_size: int
    input: list[TensorConfigurationMessage]
    output: list[TensorConfigurationMessage]
    parameters: dict[str, ParameterMessage]


class ModelIndexMessage(_Message):
    """Triton's extension: a model that is there."""

    name: str
    version: str
    state: str


class ServerMetadataReply(_Message):
    """Who answers, and in which extensions of the protocol."""

    name: str
    version: str
    extensions: list[str]


class LiveReply(_Message):
    """Whether the server runs."""

    live: bool


class ReadyReply(_Message):
    """Whether the server, or the model, would score now."""

    ready: bool


class ProtocolErrorMessage(_Message):
    """Every answer that is no success; the protocol asks for `error` alone."""

    error: str = Field(description="What was expected and what came.")
    code: int = Field(description="The HTTP status.")
    reason: str = Field(description="Stable code, the same as over gRPC.")
    request_id: str = Field(description="The call's X-Request-Id.")
    retry_after_ms: int | None = Field(None, description="Only where the same call may succeed later.")
