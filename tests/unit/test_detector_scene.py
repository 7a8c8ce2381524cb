from dataclasses import replace

import numpy as np
import pytest

from ferserve.training.detector.crops import FaceCrop
from ferserve.training.detector.damage import damage
from ferserve.training.detector.labelling import LabelledPhoto
from ferserve.training.detector.recipe import ferdet
from ferserve.training.detector.scene import Placement, Scene
from ferserve.training.detector.views import Studio, photo_view

SETTINGS = ferdet().scenes
CROP_PX = 112


def marked_crop():
    """A dark crop whose face is a bright ellipse exactly inside its box, the first landmark a red dot."""
    y, x = np.mgrid[:CROP_PX, :CROP_PX] + 0.5
    image = np.full((CROP_PX, CROP_PX, 3), 10, np.uint8)
    image[((x - 60) / 25) ** 2 + ((y - 50) / 35) ** 2 <= 1] = (0, 255, 0)
    image[(x - 48) ** 2 + (y - 40) ** 2 <= 16] = (255, 0, 0)
    points = np.array([[48, 40], [72, 40], [60, 55], [50, 65], [70, 65]], np.float32)
    return FaceCrop(image=image, box=np.array([35, 15, 85, 85], np.float32), landmarks=points)


def _scene(side=200):
    return Scene(np.full((side, side, 3), 10, np.uint8), min_exact_px=12.0)


def _place(**changes):
    values = {"x_px": 100.0, "y_px": 90.0, "size_px": 70.0, "angle_deg": 0.0, "mirror": False, "mask": "card"}
    return Placement(**(values | changes))


def _bounds(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("size_px", [30.0, 70.0, 110.0])
@pytest.mark.parametrize("angle_deg", [0.0, 30.0, -45.0])
@pytest.mark.parametrize("mirror", [False, True])
def test_box_and_landmarks_are_where_the_face_is(size_px, angle_deg, mirror):
    scene = _scene()
    scene.paste(marked_crop(), _place(size_px=size_px, angle_deg=angle_deg, mirror=mirror))
    assert scene.boxes[0] == pytest.approx(_bounds(scene.image.max(axis=2) > 120), abs=1.5)
    red = (scene.image[:, :, 0].astype(int) - scene.image[:, :, 1]) > 60
    dot = np.argwhere(red).mean(axis=0)[::-1] + 0.5
    # A mirror makes the person's right eye the left one.
    assert scene.landmarks[0, 1 if mirror else 0] == pytest.approx(dot, abs=1.0)
    assert scene.exact.tolist() == [True]


def test_the_size_is_the_longer_side():
    scene = _scene()
    scene.paste(marked_crop(), _place(size_px=35.0))
    assert scene.boxes[0] == pytest.approx([87.5, 72.5, 112.5, 107.5])


@pytest.mark.parametrize("change", [{"x_px": 10.0}, {"y_px": 190.0}, {"size_px": 11.0}])
def test_a_face_over_the_edge_or_too_small_is_ignored(change):
    scene = _scene()
    scene.paste(marked_crop(), _place(**change))
    assert scene.exact.tolist() == [False]


def test_a_face_wholly_outside_leaves_the_picture_alone():
    scene = _scene()
    scene.paste(marked_crop(), _place(x_px=-300.0))
    assert (scene.image == 10).all()


def test_a_hidden_face_is_ignored_and_a_grazed_one_is_not():
    scene = _scene()
    scene.paste(marked_crop(), _place())
    scene.cover(np.array([[70.0, 50], [85, 50], [85, 130], [70, 130]]), np.full((4, 4, 3), 200, np.uint8))
    assert scene.exact.tolist() == [True]
    scene.paste(marked_crop(), _place(x_px=110.0))
    assert scene.exact.tolist() == [False, True]


def _photo():
    image = np.full((150, 200, 3), 10, np.uint8)
    image[40:80, 60:90] = 250
    box = np.array([[60, 40, 90, 80]], np.float32)
    return LabelledPhoto(image=image, boxes=box, landmarks=np.full((1, 5, 2), 60, np.float32), avoid=box)


@pytest.mark.parametrize("exact", [False, True])
def test_a_photos_own_faces_are_exact_where_the_settings_say_so(exact):
    settings = replace(SETTINGS, exact_photos=exact)
    views = [photo_view(_photo(), np.random.default_rng(seed), size_px=256, settings=settings) for seed in range(20)]
    assert any(view.exact.any() for view in views) == exact
    views[0].paste(marked_crop(), _place())
    assert views[0].exact[-1]


@pytest.mark.parametrize("seed", range(8))
def test_a_photos_faces_move_with_it(seed):
    settings = replace(SETTINGS, exact_photos=True)
    view = photo_view(_photo(), np.random.default_rng(seed), size_px=256, settings=settings)
    if not len(view.boxes) or not view.exact[0]:
        return
    x0, y0, x1, y1 = view.boxes[0].round().astype(int)
    assert view.image[(y0 + y1) // 2, (x0 + x1) // 2].tolist() == [250, 250, 250]
    assert view.image[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].mean() > 150


def test_a_picture_depends_on_its_seed_alone():
    studio = Studio([_photo()], [marked_crop()], SETTINGS)
    first, again, other = (studio.draw(np.random.default_rng([1, seed]), size_px=128) for seed in (5, 5, 6))
    assert (first.image == again.image).all()
    assert (first.boxes == again.boxes).all()
    assert first.image.shape == other.image.shape
    assert (first.image != other.image).any()


def test_no_faces_means_none():
    studio = Studio([], [marked_crop()], SETTINGS)
    scene = studio.compose(np.random.default_rng(0), height_px=64, width_px=96, count=0)
    assert scene.image.shape == (64, 96, 3)
    assert len(scene.boxes) == 0


def test_damage_keeps_shape_and_leaves_its_input_alone():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    kept = image.copy()
    damaged = damage(image, np.random.default_rng(1), share=1.0)
    assert (damaged.shape, damaged.dtype) == (image.shape, np.uint8)
    assert (image == kept).all()
    assert (damaged != image).any()
    assert damage(image, np.random.default_rng(1), share=0.0) is image
