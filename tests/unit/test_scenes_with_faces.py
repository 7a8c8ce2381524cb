import re

import cv2
import numpy as np
import pytest

from ferserve.training.data.errors import DataError
from ferserve.training.data.expw_scenes import Photo
from ferserve.training.detector.geometry import overlaps
from ferserve.training.scenes_with_faces import CLEARANCE, SceneSettings, compose

SETTINGS = SceneSettings(seed=3, min_side_px=40, max_side_px=80, width_px=240, height_px=200, faces_per_scene=3)


@pytest.fixture(scope="module")
def faces():
    """Smooth pictures that differ from one another."""
    grains = np.random.default_rng(0).integers(0, 256, (12, 4, 4), dtype=np.uint8)
    return np.stack([cv2.resize(grain, (48, 48), interpolation=cv2.INTER_CUBIC) for grain in grains])


@pytest.fixture
def photo(tmp_path):
    def make(width, height, boxes, name="a.png"):
        cv2.imwrite(str(tmp_path / name), np.full((height, width, 3), (0, 0, 255), np.uint8))
        labelled = np.asarray(boxes, np.float32).reshape(-1, 4)
        return Photo(name=name, path=tmp_path / name, labelled=labelled, expressions=np.zeros(len(boxes), np.int64))

    return make


def _pixels(scene):
    return cv2.imdecode(np.frombuffer(scene.jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)


def test_every_face_stands_in_one_scene_whole_and_alone(faces):
    scenes = list(compose(faces, SETTINGS))
    assert sorted(np.concatenate([scene.rows for scene in scenes]).tolist()) == list(range(len(faces)))
    assert max(len(scene.rows) for scene in scenes) <= 3
    for scene in scenes:
        height, width = _pixels(scene).shape
        assert (height, width) == (200, 240)
        assert (overlaps(scene.tiles, scene.tiles) > 0).sum() == len(scene.rows)
        assert scene.tiles.min() >= 0
        assert (scene.tiles[:, 2:] <= (width, height)).all()
        sides = scene.tiles[:, 2:] - scene.tiles[:, :2]
        assert (sides[:, 0] == sides[:, 1]).all()
        assert ((sides >= 40) & (sides <= 80)).all()


def test_a_tile_holds_its_face_pixel_for_pixel_but_for_size_and_jpeg(faces):
    for scene in compose(faces, SETTINGS):
        pixels = _pixels(scene)
        for row, tile in zip(scene.rows, scene.tiles.astype(int), strict=True):
            x0, y0, x1, y1 = tile.tolist()
            back = cv2.resize(pixels[y0:y1, x0:x1], (48, 48), interpolation=cv2.INTER_AREA)
            differences = [np.abs(back.astype(int) - face.astype(int)).mean() for face in faces]
            assert int(np.argmin(differences)) == row
            assert min(differences) < 5


def test_the_edge_fades():
    scene = next(iter(compose(np.full((1, 48, 48), 255, np.uint8), SETTINGS)))
    x0, y0, x1, _ = scene.tiles[0].astype(int).tolist()
    edge = round(0.25 * (x1 - x0))
    column = _pixels(scene)[y0 - edge : y0, (x0 + x1) // 2].astype(int)
    assert column[-1] > 200
    assert (np.diff(column) > -8).all()  # brighter all the way in, as far as JPEG allows


def test_the_same_seed_gives_the_same_bytes(faces):
    first, again = (list(compose(faces, SETTINGS)) for _ in range(2))
    assert [scene.jpeg for scene in first] == [scene.jpeg for scene in again]
    other = SceneSettings(seed=4, min_side_px=40, max_side_px=80, width_px=240, height_px=200)
    assert [scene.jpeg for scene in compose(faces, other)] != [scene.jpeg for scene in first]


def test_photos_keep_their_faces_to_themselves(faces, photo):
    boxes = np.array([[100, 100, 160, 180], [300, 20, 340, 70]], np.float32)
    for scene in compose(faces, SETTINGS, [photo(400, 300, boxes)]):
        assert _pixels(scene).shape == (300, 400)
        size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        guarded = boxes + CLEARANCE * size * np.array([-1, -1, 1, 1])
        assert not overlaps(scene.tiles, guarded.astype(np.float32)).any()


def test_a_photo_without_room_is_passed_over(faces, photo):
    photos = [photo(30, 30, [], "small.png"), photo(400, 300, [], "large.png")]
    scenes = list(compose(faces, SETTINGS, photos))
    assert {_pixels(scene).shape for scene in scenes} == {(300, 400)}
    assert sum(len(scene.rows) for scene in scenes) == len(faces)


def test_photos_without_room_at_all_are_an_error(faces, photo):
    with pytest.raises(DataError, match=r"expected room for \d+ x \d+ pixels beside the faces"):
        list(compose(faces, SETTINGS, [photo(400, 300, [[0, 0, 400, 300]])]))


def test_no_faces_make_no_scenes():
    assert list(compose(np.zeros((0, 48, 48), np.uint8), SETTINGS)) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"faces_per_scene": 0}, "faces_per_scene must be at least 1, got 0"),
        ({"min_side_px": 200}, "min_side_px must be 8 to max_side_px (160), got 200"),
        ({"height_px": 239}, "height_px must be at least 240 for the largest tile, got 239"),
        ({"jpeg_quality": 0}, "jpeg_quality must be 1 to 100, got 0"),
    ],
)
def test_settings_name_what_is_wrong(values, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        SceneSettings(**values)
