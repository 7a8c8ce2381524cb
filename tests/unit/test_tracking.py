import numpy as np
import pytest

from ferserve.faces.types import Box, Detection, Quality, ScoredFace
from ferserve.serving.tracking import KEEP_FRAMES, MAX_SMOOTHING, Tracker

QUALITY = Quality(size_px=50.0, sharpness=900.0, yaw=None, roll_deg=None)
HAPPY = (0.02, 0.02, 0.02, 0.9, 0.01, 0.01, 0.02)
SAD = (0.02, 0.02, 0.02, 0.01, 0.9, 0.01, 0.02)


def face(x, y, *, side=50.0, scores=HAPPY, landmarks=None):
    box = Box(x0=x, y0=y, x1=x + side, y1=y + side)
    detection = Detection(box=box, score=0.9, landmarks=landmarks)
    return ScoredFace(detection=detection, scores=np.array(scores, np.float32), uncertain=False, quality=QUALITY)


def update(tracker, *faces, model="m", uncertain_below=0.5):
    return tracker.update(faces, model=model, uncertain_below=uncertain_below)


def ids(faces):
    return [face.track_id for face in faces]


def test_two_faces_keep_their_ids_whatever_order_they_come_in():
    tracker = Tracker()
    assert ids(update(tracker, face(0, 0), face(200, 0))) == [1, 2]
    assert ids(update(tracker, face(205, 3), face(4, 2))) == [2, 1]


def test_a_face_that_jumps_by_more_than_its_size_is_another():
    tracker = Tracker()
    update(tracker, face(0, 0))
    assert ids(update(tracker, face(51, 0))) == [2]


def test_a_face_that_moved_off_its_own_box_is_still_the_same_if_it_stayed_near():
    tracker = Tracker()
    update(tracker, face(0, 0))
    assert ids(update(tracker, face(35, 35, side=40))) == [1]


def test_a_face_of_another_size_is_another():
    tracker = Tracker()
    update(tracker, face(0, 0, side=50))
    assert ids(update(tracker, face(-30, -30, side=110))) == [2]


def test_landmarks_tell_apart_what_boxes_do_not():
    tracker = Tracker()
    left, right = np.full((5, 2), 20, np.float32), np.full((5, 2), 45, np.float32)
    update(tracker, face(0, 0, landmarks=left), face(8, 0, landmarks=right))
    moved = update(tracker, face(4, 0, landmarks=right), face(4, 0, landmarks=left))
    assert ids(moved) == [2, 1]


def test_a_hidden_face_comes_back_to_its_track_for_a_while():
    tracker = Tracker()
    update(tracker, face(0, 0))
    for _ in range(KEEP_FRAMES):
        update(tracker)
    assert ids(update(tracker, face(0, 0))) == [1]
    for _ in range(KEEP_FRAMES + 1):
        update(tracker)
    assert ids(update(tracker, face(0, 0))) == [2]


def test_smoothing_keeps_a_part_of_the_earlier_scores():
    tracker = Tracker(0.75)
    update(tracker, face(0, 0, scores=HAPPY))
    (steadied,) = update(tracker, face(0, 0, scores=SAD))
    assert steadied.scores == pytest.approx(0.75 * np.array(HAPPY) + 0.25 * np.array(SAD))
    assert steadied.expression.label == "happy"


def test_what_was_smoothed_is_judged_uncertain_anew():
    tracker = Tracker(0.5)
    update(tracker, face(0, 0, scores=HAPPY))
    assert update(tracker, face(0, 0, scores=SAD))[0].uncertain
    assert not update(tracker, face(0, 0, scores=SAD))[0].uncertain


def test_scores_of_two_models_are_not_mixed():
    tracker = Tracker(0.5)
    update(tracker, face(0, 0, scores=HAPPY), model="one")
    (steadied,) = update(tracker, face(0, 0, scores=SAD), model="two")
    assert steadied.scores == pytest.approx(np.array(SAD))


def test_a_box_that_jitters_is_steadied_and_one_that_moves_is_not_held_back():
    tracker = Tracker(0.8)
    update(tracker, face(0, 0))
    (jitter,) = update(tracker, face(1, 0))
    assert 0 < jitter.detection.box.x0 < 0.5
    (moved,) = update(tracker, face(30, 0))
    assert moved.detection.box.x0 == 30


def test_landmarks_are_steadied_with_their_box():
    tracker = Tracker(0.8)
    update(tracker, face(0, 0, landmarks=np.full((5, 2), 20, np.float32)))
    (jitter,) = update(tracker, face(1, 0, landmarks=np.full((5, 2), 21, np.float32)))
    assert jitter.detection.landmarks[0, 0] - 20 == pytest.approx(jitter.detection.box.x0, abs=1e-5)


@pytest.mark.parametrize("smoothing", [-0.1, MAX_SMOOTHING + 0.01, float("nan")])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match=r"^smoothing must be 0 to 0\.95, got"):
        Tracker(smoothing)
