"""What of the Open Inference Protocol is the same over both wires."""

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pytest

from ferserve.faces.errors import InvalidRequestError
from ferserve.serving.health import Health
from ferserve.serving.oip import InferenceProtocol, InferenceRequest, InputTensor
from ferserve.serving.requests import (
    AnalyzeOptions,
    CropScores,
    ModelInfo,
    Priority,
    RequestContext,
    StageTimings,
)

MODEL = ModelInfo(
    name="m",
    version="1",
    archive_sha256="a" * 64,
    preprocess_sha256="b" * 64,
    precision="fp32",
    architecture="",
    paper="",
    crop_size_px=2,
    crop_channels=1,
    temperature=1.0,
    uncertain_below=0.5,
    figures={},
    is_default=True,
)


@dataclass
class Asked:
    """An analyzer that keeps what it is asked."""

    options: list[AnalyzeOptions] = field(default_factory=list)
    contexts: list[RequestContext] = field(default_factory=list)

    def models(self) -> list[ModelInfo]:
        return [MODEL]

    async def score(self, crops: np.ndarray, options: AnalyzeOptions, context: RequestContext) -> CropScores:
        self.options.append(options)
        self.contexts.append(context)
        return CropScores(scores=np.zeros((len(crops), 7), np.float32), model=MODEL, timings=StageTimings())


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def protocol(asked: Asked) -> InferenceProtocol:
    return InferenceProtocol(asked, Health(), version="1.2.3")


def request_with(**parameters: object) -> InferenceRequest:
    crops = InputTensor(name="crops", datatype="UINT8", shape=[1, 2, 2, 1], data=bytes(4))
    return InferenceRequest(model="m", version="", inputs=[crops], parameters=parameters)


@pytest.mark.parametrize(
    ("priority", "meant"),
    [(0, Priority.INTERACTIVE), (1, Priority.INTERACTIVE), (2, Priority.BULK), (2**63, Priority.BULK)],
)
async def test_a_priority_past_the_first_is_bulk(protocol, asked, priority, meant):
    await protocol.infer(request_with(priority=priority), RequestContext(request_id="a"))
    assert asked.options[0] == AnalyzeOptions(model="m", priority=meant)


@pytest.mark.parametrize("name", ["priority", "timeout"])
@pytest.mark.parametrize("value", [-1, 0.5, "1", True])
async def test_a_parameter_of_another_kind_is_named(protocol, asked, name, value):
    with pytest.raises(InvalidRequestError, match=f"parameter {name}: expected a whole number of 0 or more"):
        await protocol.infer(request_with(**{name: value}), RequestContext(request_id="a"))
    assert asked.options == []


async def test_the_earlier_of_two_deadlines_counts(protocol, asked):
    now_s = asyncio.get_running_loop().time()
    for timeout_us, call_s in [
        (0, None),
        (0, now_s + 5),
        (1_000_000, now_s + 5),
        (10_000_000, now_s + 5),
        (1_000_000, None),
    ]:
        await protocol.infer(request_with(timeout=timeout_us), RequestContext(request_id="a", deadline_s=call_s))
    deadlines_s = [context.deadline_s for context in asked.contexts]
    assert deadlines_s[:2] == [None, now_s + 5]
    assert deadlines_s[2:] == [pytest.approx(now_s + 1, abs=0.9), now_s + 5, pytest.approx(now_s + 1, abs=0.9)]


async def test_parameters_that_nobody_here_knows_are_passed_over(protocol, asked):
    await protocol.infer(request_with(colour="blue"), RequestContext(request_id="a"))
    assert len(asked.options) == 1


async def test_an_empty_name_is_no_model(protocol):
    assert not protocol.is_model_ready("", "")
