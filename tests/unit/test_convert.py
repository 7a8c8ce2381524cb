import numpy as np
import pytest

from ferserve.faces.errors import FerserveError, InvalidImageError, InvalidRequestError
from ferserve.faces.labels import LABELS, Expression
from ferserve.faces.types import LANDMARKS, Box, Detection, Quality, QualityIssue, ScoredFace
from ferserve.serving import convert
from ferserve.serving.requests import (
    AnalyzeOptions,
    FaceClassification,
    FacesClassification,
    ImageAnalysis,
    ModelInfo,
    ModelRef,
    Priority,
    StageTimings,
)
from ferserve.serving.streams import FrameReply
from ferserve.v1 import expression_pb2 as pb
from ferserve.v1 import expression_service_pb2 as service_pb

REF = {
    "name": "mobilenet",
    "version": "1.0.0",
    "archive_sha256": "a" * 64,
    "preprocess_sha256": "b" * 64,
    "precision": "int8",
}
MODEL = ModelInfo(
    **REF,
    architecture="MobileNet",
    paper="A paper",
    crop_size_px=112,
    crop_channels=3,
    temperature=1.1,
    uncertain_below=0.35,
    figures={"accuracy": 0.7},
    is_default=True,
)
TIMINGS = StageTimings(decode_ms=1.1, detect_ms=2.2, preprocess_ms=3.3, queue_ms=4.4, infer_ms=5.5, total_ms=6.6)
SCORES = np.array([0.05, 0.1, 0.15, 0.2, 0.25, 0.0, 0.25], dtype=np.float32)


def face(landmarks=None, quality=None):
    return ScoredFace(
        detection=Detection(box=Box(x0=-1.5, y0=2.0, x1=30.25, y1=40.0), score=0.5, landmarks=landmarks),
        scores=SCORES,
        uncertain=True,
        quality=quality or Quality(size_px=31.75, sharpness=12.5, yaw=None, roll_deg=None),
    )


def analysis(*faces):
    return ImageAnalysis(width_px=640, height_px=480, faces=faces, detector="haar", model=MODEL, timings=TIMINGS)


def there_and_back(value):
    return convert.analysis_from_pb(convert.analysis_to_pb(value))


def test_the_enums_say_the_same_words_as_the_values():
    assert pb.Expression.keys()[1:] == [f"EXPRESSION_{value.name}" for value in Expression]
    assert pb.Priority.keys()[1:] == [f"PRIORITY_{value.name}" for value in Priority]
    assert pb.QualityIssue.keys()[1:] == [f"QUALITY_ISSUE_{value.name}" for value in QualityIssue]


def test_the_scores_and_points_are_those_of_the_values_in_their_order():
    assert [field.name for field in pb.Scores.DESCRIPTOR.fields] == list(LABELS)
    assert [field.name for field in pb.Landmarks.DESCRIPTOR.fields] == list(LANDMARKS)


def test_an_expression_is_one_more_on_the_wire():
    assert [pb.Expression.Value(f"EXPRESSION_{value.name}") for value in Expression] == [1, 2, 3, 4, 5, 6, 7]


def test_absent_options_are_the_defaults():
    assert convert.options_from_pb(service_pb.AnalyzeOptions()) == AnalyzeOptions()


@pytest.mark.parametrize(
    "options",
    [
        AnalyzeOptions(),
        AnalyzeOptions(model="dal-net", priority=Priority.BULK, detection_size_px=64, exact=True, max_faces=1),
    ],
)
def test_options_come_back(options):
    assert convert.options_from_pb(convert.options_to_pb(options)) == options


def test_a_number_that_is_zero_is_not_one_that_is_absent():
    with pytest.raises(InvalidRequestError, match="detection_size: expected 64 to 4096 pixels, got 0"):
        convert.options_from_pb(service_pb.AnalyzeOptions(detection_size=0))
    with pytest.raises(InvalidRequestError, match="max_faces: expected 1 to 1000, got 0"):
        convert.options_from_pb(service_pb.AnalyzeOptions(max_faces=0))


def test_an_unknown_priority_is_refused():
    with pytest.raises(InvalidRequestError, match=r"^priority: expected one of PRIORITY_UNSPECIFIED, .*, got 3$"):
        convert.options_from_pb(service_pb.AnalyzeOptions(priority=3))


def test_a_face_is_written_field_for_field():
    landmarks = np.arange(10, dtype=np.float32).reshape(5, 2)
    quality = Quality(size_px=31.75, sharpness=12.5, yaw=0.0, roll_deg=-4.5, issues=(QualityIssue.DARK,))
    [message] = convert.analysis_to_pb(analysis(face(landmarks, quality))).faces
    assert message == pb.Face(
        box=pb.BoundingBox(x0=-1.5, y0=2.0, x1=30.25, y1=40.0),
        landmarks=pb.Landmarks(
            right_eye=pb.Point(x=0, y=1),
            left_eye=pb.Point(x=2, y=3),
            nose=pb.Point(x=4, y=5),
            right_mouth_corner=pb.Point(x=6, y=7),
            left_mouth_corner=pb.Point(x=8, y=9),
        ),
        detection_score=0.5,
        scores=pb.Scores(angry=0.05, disgust=0.1, fear=0.15, happy=0.2, sad=0.25, surprise=0.0, neutral=0.25),
        expression=pb.EXPRESSION_SAD,
        uncertain=True,
        quality=pb.Quality(size_px=31.75, sharpness=12.5, yaw=0.0, roll_deg=-4.5, issues=[pb.QUALITY_ISSUE_DARK]),
    )
    assert message.quality.HasField("yaw")


def test_a_face_without_landmarks_has_neither_points_nor_pose():
    [message] = convert.analysis_to_pb(analysis(face())).faces
    assert not message.HasField("landmarks")
    assert not message.quality.HasField("yaw")
    assert not message.quality.HasField("roll_deg")
    [came] = there_and_back(analysis(face())).faces
    assert (came.detection.landmarks, came.quality.yaw, came.quality.roll_deg) == (None, None, None)


def test_a_face_comes_back():
    landmarks = np.linspace(-3, 99, 10, dtype=np.float32).reshape(5, 2)
    quality = Quality(size_px=31.75, sharpness=12.5, yaw=-0.5, roll_deg=0.0, issues=tuple(QualityIssue))
    [came] = there_and_back(analysis(face(landmarks, quality))).faces
    assert came.detection.box == Box(x0=-1.5, y0=2.0, x1=30.25, y1=40.0)
    assert came.detection.landmarks.dtype == came.scores.dtype == np.float32
    np.testing.assert_array_equal(came.detection.landmarks, landmarks)
    np.testing.assert_array_equal(came.scores, SCORES)
    assert (came.detection.score, came.uncertain, came.expression) == (0.5, True, Expression.SAD)
    assert came.quality == quality


def test_an_analysis_comes_back_with_the_models_reference():
    came = there_and_back(analysis())
    assert (came.width_px, came.height_px, came.faces, came.detector) == (640, 480, (), "haar")
    assert came.model == ModelRef(**REF)
    assert came.timings == TIMINGS


def test_an_issue_of_a_newer_server_is_left_out():
    message = convert.analysis_to_pb(analysis(face()))
    message.faces[0].quality.issues.extend([99, pb.QUALITY_ISSUE_SMALL])
    assert convert.analysis_from_pb(message).faces[0].quality.issues == (QualityIssue.SMALL,)


def test_a_model_comes_back():
    assert convert.model_from_pb(convert.model_to_pb(MODEL)) == MODEL


def test_outcomes_come_back():
    good = convert.outcome_from_pb(convert.batch_item_to_pb(analysis(face())))
    bad = convert.outcome_from_pb(convert.batch_item_to_pb(InvalidImageError("truncated")))
    assert len(good.faces) == 1
    assert isinstance(bad, InvalidImageError)
    assert bad.message == "truncated"


def test_a_stream_reply_carries_its_frames_id_either_way():
    assert convert.stream_reply_to_pb(FrameReply(id=2**64 - 1, outcome=analysis())).id == 2**64 - 1
    failed = convert.stream_reply_to_pb(FrameReply(id=3, outcome=RuntimeError("secret"), dropped=2))
    assert (failed.id, failed.error.message, failed.dropped_frames) == (3, "internal error", 2)


def test_an_outcome_that_this_version_does_not_know_is_an_error():
    came = convert.outcome_from_pb(service_pb.StreamAnalyzeResponse(id=1))
    assert type(came) is FerserveError
    assert "neither a result nor an error" in came.message
    [item] = convert.classification_from_pb(
        service_pb.ClassifyFacesResponse(items=[service_pb.ClassifyFacesItem()])
    ).items
    assert type(item) is FerserveError


def test_an_items_error_of_someone_else_keeps_its_words():
    item = service_pb.BatchAnalyzeItem()
    item.error.code, item.error.message = 13, "who knows"
    assert convert.outcome_from_pb(item).message == "who knows"


def test_classifications_come_back():
    good = FaceClassification(scores=SCORES, uncertain=True)
    sent = FacesClassification(items=(good, InvalidImageError("truncated")), model=MODEL, timings=TIMINGS)
    message = convert.classification_to_pb(sent)
    assert message.items[0].classification.expression == pb.EXPRESSION_SAD
    came = convert.classification_from_pb(message)
    np.testing.assert_array_equal(came.items[0].scores, SCORES)
    assert came.items[0].uncertain
    assert isinstance(came.items[1], InvalidImageError)
    assert came.model == ModelRef(**REF)
    assert came.timings == TIMINGS
