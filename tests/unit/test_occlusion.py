import numpy as np
import pytest
import skimage.data

from ferserve.faces.index import open_archive
from ferserve.faces.labels import Expression
from ferserve.faces.occlusion import PATCH, occluded_crops, occlusion_map
from ferserve.faces.preprocess import whole_crop
from ferserve.faces.session import ScoringSession


def test_every_place_is_covered_once_with_the_faces_own_mean():
    crop = np.arange(40 * 40, dtype=np.uint32).reshape(40, 40, 1) % 251
    crop = crop.astype(np.uint8)
    covered = occluded_crops(crop, grid=4)
    assert covered.shape == (16, 40, 40, 1)
    mean = round(float(crop.mean()))
    changed = np.zeros((40, 40), bool)
    for one in covered:
        differs = (one != crop)[:, :, 0]
        assert (one[differs] == mean).all()
        assert 0 < differs.sum() <= round(PATCH * 40) ** 2
        changed |= differs
    assert changed.mean() > 0.95  # some pixels are of the mean already


def test_colours_keep_their_own_means():
    crop = np.zeros((16, 16, 3), np.uint8)
    crop[:, :, 2] = 200
    crop[0, 0] = 255
    assert occluded_crops(crop, grid=2)[0, 4, 4].tolist() == [1, 1, 200]


@pytest.mark.parametrize("grid", [1, 13])
def test_a_grid_out_of_range_is_refused(grid):
    with pytest.raises(ValueError, match=f"^grid must be 2 to 12, got {grid}$"):
        occluded_crops(np.zeros((16, 16, 1), np.uint8), grid=grid)


def test_the_map_is_what_the_top_score_loses():
    scores = np.array([0, 0, 0, 0.9, 0.1, 0, 0], np.float32)
    covered = np.zeros((4, 7), np.float32)
    covered[:, 3] = [0.9, 0.5, 1.0, 0.0]
    assert occlusion_map(scores, covered) == pytest.approx(np.array([[0.0, 0.4], [-0.1, 0.9]]), abs=1e-6)


def test_a_smile_rests_on_the_lower_half_of_the_face(astronaut_crop):
    session = ScoringSession.from_archive(open_archive("default"))
    scores = session.score(astronaut_crop[None])[0]
    assert scores.argmax() == Expression.HAPPY
    drops = occlusion_map(scores, session.score(occluded_crops(astronaut_crop, grid=6)))
    assert drops.shape == (6, 6)
    row, column = np.unravel_index(int(drops.argmax()), drops.shape)
    assert row >= 3
    assert 1 <= column <= 4


@pytest.fixture
def astronaut_crop():
    spec = open_archive("default").manifest.preprocess
    return whole_crop(np.ascontiguousarray(skimage.data.astronaut()[60:210, 145:295]), spec)
