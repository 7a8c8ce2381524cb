"""Faces of made-up films: on a grid too wide for mistakes, ids are exact; anywhere, the rules of tracks hold."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ferserve.faces.types import Box, Detection, Quality, ScoredFace
from ferserve.serving.tracking import STEADY_SIDES, Tracker

QUALITY = Quality(size_px=50.0, sharpness=900.0, yaw=None, roll_deg=None)
SIDE = 40.0
smoothings = st.floats(0, 0.95)
numbers = st.floats(-2000, 2000, width=32)
lengths = st.floats(1, 500, width=32)


@st.composite
def faces(draw, x=numbers, y=numbers, side=lengths):
    left, top, length = draw(x), draw(y), draw(side)
    raw = np.random.default_rng(draw(st.integers(0, 2**16))).uniform(0.01, 1, 7)
    landmarks = None
    if draw(st.booleans()):
        shape = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
        landmarks = (np.array([left, top]) + length * shape).astype(np.float32)
    return ScoredFace(
        detection=Detection(
            box=Box(x0=left, y0=top, x1=left + length, y1=top + length), score=0.5, landmarks=landmarks
        ),
        scores=(raw / raw.sum()).astype(np.float32),
        uncertain=False,
        quality=QUALITY,
    )


films = st.lists(st.lists(faces(), max_size=4), max_size=5)


@settings(max_examples=40)
@given(films, smoothings)
def test_every_face_of_every_frame_has_one_track_of_its_own(film, smoothing):
    tracker = Tracker(smoothing)
    highest = 0
    for frame in film:
        followed = tracker.update(frame, model="m", uncertain_below=0.3)
        ids = [face.track_id for face in followed]
        assert len(set(ids)) == len(ids) == len(frame)
        assert all(track_id >= 1 for track_id in ids)
        new = sorted(track_id for track_id in ids if track_id > highest)
        assert new == list(range(highest + 1, highest + 1 + len(new)))  # none is left out, none comes again
        highest = max([highest, *ids])


@settings(max_examples=40)
@given(films, smoothings)
def test_smoothed_scores_are_scores_and_boxes_stay_near(film, smoothing):
    tracker = Tracker(smoothing)
    for frame in film:
        for face, raw in zip(tracker.update(frame, model="m", uncertain_below=0.3), frame, strict=True):
            assert face.scores.dtype == np.float32
            assert abs(float(face.scores.sum()) - 1) < 1e-4
            assert (face.scores >= 0).all()
            assert face.uncertain == (float(face.scores.max()) < 0.3)
            side = raw.detection.box.width_px
            lag = max(
                abs(getattr(face.detection.box, edge) - getattr(raw.detection.box, edge))
                for edge in ("x0", "y0", "x1", "y1")
            )
            assert lag <= smoothing * STEADY_SIDES / 4 * side + 1e-2


@settings(max_examples=40)
@given(films)
def test_without_smoothing_only_the_id_is_added(film):
    tracker = Tracker()
    for frame in film:
        for face, raw in zip(tracker.update(frame, model="m", uncertain_below=0.0), frame, strict=True):
            assert face.detection.box == raw.detection.box
            assert np.array_equal(face.scores, raw.scores)
            assert face.quality is raw.quality


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), smoothings)
def test_faces_far_apart_keep_their_ids_however_they_move_and_are_shuffled(seed, count, smoothing):
    rng, tracker = np.random.default_rng(seed), Tracker(smoothing)
    places = np.array([[300.0 * index, 0.0] for index in range(count)])
    known = {}
    for _ in range(6):
        # At most half a side a frame, and never near a neighbour, who is 300 px away.
        places += rng.uniform(-14, 14, places.shape)
        order = rng.permutation(count)
        followed = tracker.update([at(*places[who]) for who in order], model="m", uncertain_below=0.3)
        for who, face in zip(order, followed, strict=True):
            assert known.setdefault(int(who), face.track_id) == face.track_id


def at(x, y):
    """A face without landmarks whose top left corner is there."""
    box = Box(x0=x, y0=y, x1=x + SIDE, y1=y + SIDE)
    scores = np.full(7, 1 / 7, np.float32)
    return ScoredFace(detection=Detection(box=box, score=0.5), scores=scores, uncertain=False, quality=QUALITY)
