import json

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from pydantic import ValidationError

from ferserve.faces.labels import EXPRESSIONS
from ferserve.faces.types import Box, Detection, Quality, QualityIssue, ScoredFace
from ferserve.serving.convert import analysis_to_pb, classification_to_pb, model_to_pb
from ferserve.serving.requests import (
    AnalyzeOptions,
    FaceClassification,
    FacesClassification,
    ImageAnalysis,
    ModelInfo,
    Priority,
    StageTimings,
)
from ferserve.serving.rest_requests import AnalyzeMessage, BatchAnalyzeMessage, OptionsMessage
from ferserve.serving.rest_schema import (
    ClassifyFacesItem,
    ClassifyFacesReply,
    ExpressionName,
    FaceClassificationMessage,
    ImageAnalysisMessage,
    ModelInfoMessage,
    ModelRefMessage,
    TimingsMessage,
)
from ferserve.v1 import expression_pb2

MODEL = ModelInfo(
    name="mobilenet",
    version="1.0.0",
    architecture="MobileNet V1",
    paper="Howard et al. 2017",
    archive_sha256="a" * 64,
    preprocess_sha256="b" * 64,
    precision="int8",
    crop_size_px=48,
    crop_channels=1,
    temperature=1.1,
    uncertain_below=0.4,
    figures={"accuracy": 0.66, "ece": 0.02},
    is_default=True,
)
TIMINGS = StageTimings(decode_ms=1.5, detect_ms=4.4, preprocess_ms=0.8, queue_ms=0.1, infer_ms=3.2, total_ms=10.0)


def scores_for(top: int) -> np.ndarray:
    raw = np.random.default_rng(top).random(7) + np.eye(7)[top]
    return (raw / raw.sum()).astype(np.float32)


def face(top: int, *, landmarks: bool) -> ScoredFace:
    points = np.random.default_rng(top).uniform(-3, 900, (5, 2)).astype(np.float32) if landmarks else None
    return ScoredFace(
        detection=Detection(box=Box(x0=-0.1, y0=2.0, x1=33.3, y1=1 / 3), score=0.9123, landmarks=points),
        scores=scores_for(top),
        uncertain=top % 2 == 0,
        quality=Quality(
            size_px=33.4,
            sharpness=12.345678,
            yaw=0.1 if landmarks else None,
            roll_deg=-7.7 if landmarks else None,
            issues=tuple(QualityIssue) if landmarks else (),
        ),
    )


def analysis(*faces: ScoredFace) -> ImageAnalysis:
    return ImageAnalysis(width_px=640, height_px=480, faces=faces, detector="haar", model=MODEL, timings=TIMINGS)


def as_json(message) -> dict:
    return json.loads(message.model_dump_json(exclude_none=True))


def as_protobuf(message) -> dict:
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


@pytest.mark.parametrize("landmarks", [True, False])
def test_an_analysis_reads_the_same_over_both_protocols(landmarks):
    answer = analysis(*(face(top, landmarks=landmarks) for top in range(7)))
    assert as_json(ImageAnalysisMessage.model_validate(answer)) == as_protobuf(analysis_to_pb(answer))


def test_a_picture_without_a_face_is_an_empty_list():
    assert as_json(ImageAnalysisMessage.model_validate(analysis()))["faces"] == []


def test_a_model_reads_the_same_over_both_protocols():
    assert as_json(ModelInfoMessage.of(MODEL)) == as_protobuf(model_to_pb(MODEL))


def test_a_classification_reads_the_same_over_both_protocols():
    items = tuple(FaceClassification(scores=scores_for(top), uncertain=False) for top in range(7))
    reply = ClassifyFacesReply(
        items=[ClassifyFacesItem(classification=FaceClassificationMessage.model_validate(item)) for item in items],
        model=ModelRefMessage.model_validate(MODEL),
        timings=TimingsMessage.model_validate(TIMINGS),
    )
    answer = FacesClassification(items=items, model=MODEL, timings=TIMINGS)
    assert as_json(reply) == as_protobuf(classification_to_pb(answer))


def test_the_names_of_expressions_are_the_protos_in_our_order():
    protos = [name for name, value in expression_pb2.Expression.items() if value != 0]
    assert list(ExpressionName) == protos == [f"EXPRESSION_{expression.name}" for expression in EXPRESSIONS]


@pytest.mark.parametrize("text", ["bulk", "BULK", "PRIORITY_BULK"])
def test_a_priority_goes_by_its_word_or_the_protos_name(text):
    assert OptionsMessage(priority=text).to_options().priority is Priority.BULK


def test_all_options_arrive():
    message = OptionsMessage(model="m", priority="unspecified", detection_size=640, exact=True, max_faces=3)
    assert message.to_options() == AnalyzeOptions(model="m", detection_size_px=640, exact=True, max_faces=3)


@pytest.mark.parametrize(
    "fields",
    [{"max_face": 1}, {"max_faces": 0}, {"max_faces": 1001}, {"detection_size": 63}, {"priority": "low"}],
)
def test_options_that_are_unknown_or_out_of_range_are_refused(fields):
    with pytest.raises(ValidationError):
        OptionsMessage(**fields)


@pytest.mark.parametrize("text", ["+/8=", "-_8=", "+/8", "-_8"])
def test_base64_of_either_alphabet_is_read_as_protobuf_reads_it(text):
    message = AnalyzeMessage.model_validate_json(json.dumps({"image": text}))
    assert message.pictures == (b"\xfb\xff",)


def test_what_is_no_base64_is_refused():
    with pytest.raises(ValidationError, match="base64"):
        BatchAnalyzeMessage.model_validate_json('{"images": ["+/8=", "no picture!"]}')
