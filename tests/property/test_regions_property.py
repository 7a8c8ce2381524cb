import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ferserve.training.inside.regions import Region, region_masks

SIDE_PX = 64


@st.composite
def faces(draw):
    """Landmarks of a face in the crop, turned and sheared: the eyes level or not, the mouth somewhere below."""
    middle = complex(draw(st.floats(20, 44)), draw(st.floats(18, 34)))
    across = draw(st.floats(12, 30)) * np.exp(1j * draw(st.floats(-0.6, 0.6)))
    down = across * 1j * draw(st.floats(0.7, 1.5)) + across * draw(st.floats(-0.4, 0.4))
    half = draw(st.floats(0.05, 0.8)) * across * np.exp(1j * draw(st.floats(-0.3, 0.3)))
    points = [middle - across / 2, middle + across / 2, middle + down / 2, middle + down - half, middle + down + half]
    return np.array([[[point.real, point.imag] for point in points]], np.float32)


def masks_of(landmarks):
    return {region: region_masks(landmarks, region, size_px=SIDE_PX)[0] for region in Region}


@settings(max_examples=25, deadline=None)
@given(faces())
def test_the_parts_are_disjoint_and_compose(landmarks):
    masks = masks_of(landmarks)
    parts = [masks[region] for region in (Region.EYES, Region.MOUTH, Region.CHEEKS_AND_FOREHEAD)]
    assert (np.sum(parts, axis=0) <= 1).all()
    assert (masks[Region.MOUTH_AND_EYES] == (masks[Region.MOUTH] | masks[Region.EYES])).all()
    for half in (Region.LEFT_MOUTH, Region.BOTTOM_MOUTH):
        assert (masks[half] <= masks[Region.MOUTH]).all()
    assert not masks[Region.NONE].any()


@settings(max_examples=25, deadline=None)
@given(faces())
def test_eyes_and_mouth_corners_lie_under_what_is_named_after_them(landmarks):
    masks = masks_of(landmarks)
    for place, (x, y) in enumerate(landmarks[0]):
        row, column = int(np.floor(y)), int(np.floor(x))
        if not (0 <= row < SIDE_PX and 0 <= column < SIDE_PX) or place == 2:
            continue
        # A pixel's middle is up to 0.71 px from the point; the margins are wider for all but the widest smile.
        around = slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2)
        assert masks[Region.EYES if place < 2 else Region.MOUTH][around].any() or _beyond_bounds(landmarks, place)


def _beyond_bounds(landmarks, place):
    """Corners further apart than the bound on the mouth's width stick out of it."""
    across = np.linalg.norm(landmarks[0, 1] - landmarks[0, 0])
    return place > 2 and np.linalg.norm(landmarks[0, 4] - landmarks[0, 3]) > 1.2 * across


@settings(max_examples=25, deadline=None)
@given(faces(), st.floats(-8, 8), st.floats(-8, 8))
def test_a_shifted_face_has_its_parts_shifted(landmarks, right, down):
    whole = np.round([right, down])
    moved = masks_of(landmarks + whole.astype(np.float32))
    columns, rows = (int(value) for value in whole)
    for region, mask in masks_of(landmarks).items():
        inner = mask[8:-8, 8:-8]
        shifted = moved[region][8 + rows : SIDE_PX - 8 + rows, 8 + columns : SIDE_PX - 8 + columns]
        # Rounding of float32 landmarks may move a pixel that lies on an edge.
        assert (inner != shifted).sum() <= 2


@settings(max_examples=25, deadline=None)
@given(faces())
def test_a_mirrored_face_has_its_parts_mirrored(landmarks):
    mirrored = landmarks.copy()
    mirrored[..., 0] = SIDE_PX - mirrored[..., 0]
    mirrored = mirrored[:, [1, 0, 2, 4, 3]]
    here, there = masks_of(landmarks), masks_of(mirrored)
    for region in (Region.EYES, Region.MOUTH, Region.BOTTOM_MOUTH, Region.CHEEKS_AND_FOREHEAD):
        assert (here[region][:, ::-1] != there[region]).sum() <= 2
    halves = here[Region.LEFT_MOUTH][:, ::-1] | there[Region.LEFT_MOUTH]
    assert (halves != there[Region.MOUTH]).sum() <= SIDE_PX // 4  # the middle column, where x is exactly 0
