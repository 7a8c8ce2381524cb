import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferserve.faces.errors import InvalidRequestError
from ferserve.faces.types import Box, Detection, Quality, QualityIssue, ScoredFace
from ferserve.serving.convert import analysis_from_pb, analysis_to_pb, options_from_pb, options_to_pb
from ferserve.serving.requests import AnalyzeOptions, ImageAnalysis, ModelRef, Priority, StageTimings
from ferserve.v1.expression_service_pb2 import AnalyzeOptions as OptionsMessage

float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
int32s = st.integers(-(2**31), 2**31 - 1)
uint32s = st.integers(0, 2**32 - 1)
milliseconds = st.floats(0, 1e6)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def float32_arrays(*shape):
    size = int(np.prod(shape))
    return st.lists(float32s, min_size=size, max_size=size).map(lambda row: np.array(row, np.float32).reshape(shape))


faces = st.builds(
    ScoredFace,
    detection=st.builds(
        Detection,
        box=st.builds(Box, x0=float32s, y0=float32s, x1=float32s, y1=float32s),
        score=float32s,
        landmarks=st.none() | float32_arrays(5, 2),
    ),
    scores=float32_arrays(7),
    uncertain=st.booleans(),
    quality=st.builds(
        Quality,
        size_px=float32s,
        sharpness=float32s,
        yaw=st.none() | float32s,
        roll_deg=st.none() | float32s,
        issues=st.lists(st.sampled_from(QualityIssue)).map(tuple),
    ),
    track_id=st.none() | uint32s,
)
analyses = st.builds(
    ImageAnalysis,
    width_px=uint32s,
    height_px=uint32s,
    faces=st.lists(faces, max_size=3).map(tuple),
    detector=texts,
    model=st.builds(
        ModelRef, name=texts, version=texts, archive_sha256=texts, preprocess_sha256=texts, precision=texts
    ),
    timings=st.builds(StageTimings, **dict.fromkeys(StageTimings.__dataclass_fields__, milliseconds)),
)


@given(analyses)
def test_an_analysis_survives_the_wire(analysis):
    message = analysis_to_pb(analysis)
    came = analysis_from_pb(type(message).FromString(message.SerializeToString()))
    assert analysis_to_pb(came) == message
    assert (came.model, came.timings, came.detector) == (analysis.model, analysis.timings, analysis.detector)
    for face, sent in zip(came.faces, analysis.faces, strict=True):
        np.testing.assert_array_equal(face.scores, sent.scores)
        assert face.detection.box == sent.detection.box
        assert face.quality == sent.quality
        assert face.expression is sent.expression
        assert face.track_id == sent.track_id


@given(
    st.builds(
        AnalyzeOptions,
        model=texts,
        priority=st.sampled_from(Priority),
        detection_size_px=st.none() | st.integers(64, 4096),
        exact=st.booleans(),
        max_faces=st.none() | st.integers(1, 1000),
    )
)
def test_options_survive_the_wire(options):
    assert options_from_pb(OptionsMessage.FromString(options_to_pb(options).SerializeToString())) == options


@given(
    st.integers(-1, 3) | int32s, st.none() | st.integers(0, 5000) | uint32s, st.none() | st.integers(0, 1001) | uint32s
)
def test_any_options_are_read_or_refused(priority, detection_size, max_faces):
    message = OptionsMessage(priority=priority, detection_size=detection_size, max_faces=max_faces)
    wrong = {
        "priority": priority not in (0, 1, 2),
        "detection_size": detection_size is not None and not 64 <= detection_size <= 4096,
        "max_faces": max_faces is not None and not 1 <= max_faces <= 1000,
    }
    if any(wrong.values()):
        with pytest.raises(InvalidRequestError) as refused:
            options_from_pb(message)
        assert wrong[refused.value.message.partition(":")[0]]
    else:
        options = options_from_pb(message)
        assert (options.detection_size_px, options.max_faces) == (detection_size, max_faces)
        assert options.priority is (Priority.BULK if priority == 2 else Priority.INTERACTIVE)
