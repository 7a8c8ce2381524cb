"""Pictures of known content to try detectors on: crowds composed of set-aside faces, and crops without a face."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ferserve.faces.types import Image
from ferserve.training.detector.contenders import Contender
from ferserve.training.detector.crops import FaceCrop
from ferserve.training.detector.labelling import LabelledPhoto, is_empty
from ferserve.training.detector.matching import Rates, match, summarise
from ferserve.training.detector.recipe import SceneSettings
from ferserve.training.detector.scene import Scene
from ferserve.training.detector.teacher import Teacher
from ferserve.training.detector.views import Studio

CROWD_SIZE_PX: Final = (1920, 1080)
CROWD_FACES: Final = 16
CROWD_FACE_PX: Final = (20.0, 160.0)
"""Smallest and largest face; sizes between are evenly spread in their logarithm."""
CROWD_SCENES: Final = SceneSettings(
    photo_share=0.5,
    empty_share=0.05,
    min_face_px=8.0,
    max_face_share=0.9,
    min_exact_px=12.0,
    max_faces=20,
    max_rotation_deg=45.0,
    turned_share=0.4,
    exact_photos=True,
    damage_share=0.15,
    occlusion_share=0.0,
    faces_per_source=6000,
)
"""Those of ferdet 1.0.0 whatever a recipe trains on: what judges must not move with what it judges."""
EMPTY_CROPS: Final = 200
EMPTY_SHARE: Final = (0.2, 0.8)
"""Side of an empty crop as a share of its photo's shorter side."""
_MAX_TRIES: Final = 50
"""Crops tried for each one wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowds:
    """Composed crowds at the detector's default size, and at the picture's own.

    Attributes:
        at_default, at_full: unmatched detections are those that are no pasted face.
    """

    at_default: Rates
    at_full: Rates


def make_crowds(photos: Sequence[LabelledPhoto], crops: Sequence[FaceCrop], *, count: int, seed: int) -> list[Scene]:
    """Compose crowds in large pictures, undamaged and with nothing before the faces.

    Args:
        photos: backgrounds are cut from these.
        count: how many pictures.
    """
    studio = Studio(photos, crops, CROWD_SCENES)
    width, height = CROWD_SIZE_PX
    scenes = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        scene = studio.compose(rng, height_px=height, width_px=width, count=0)
        smallest, largest = CROWD_FACE_PX
        for share in rng.uniform(0, 1, CROWD_FACES).tolist():
            studio.add_face(scene, rng, size_px=smallest * (largest / smallest) ** share)
        scenes.append(scene)
    return scenes


def try_crowds(contender: Contender, scenes: Sequence[Scene]) -> Crowds:
    """Search crowds at both sizes; only faces that are wholly visible count."""

    def rates(size_px: int | None) -> Rates:
        return summarise(
            [
                match(contender.detector.detect(scene.image, size_px=size_px), scene.boxes[scene.exact])
                for scene in scenes
            ]
        )

    return Crowds(at_default=rates(None), at_full=rates(max(CROWD_SIZE_PX)))


def empty_crops(images: Sequence[Image], teacher: Teacher, *, count: int, seed: int) -> list[Image]:
    """Square crops in which the teacher finds nothing at its lowest score; fewer if the photos have not so many.

    Args:
        images: RGB uint8.
    """
    rng = np.random.default_rng(seed)
    crops: list[Image] = []
    for _ in range(_MAX_TRIES * count):
        if len(crops) == count:
            break
        image = images[int(rng.integers(len(images)))]
        height, width = image.shape[:2]
        side = int(min(height, width) * rng.uniform(*EMPTY_SHARE))
        y, x = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        crop = np.ascontiguousarray(image[y : y + side, x : x + side])
        if is_empty(crop, teacher):
            crops.append(crop)
    return crops


def crops_with_face(contender: Contender, crops: Sequence[Image]) -> int:
    """In how many crops a detector finds a face."""
    return sum(bool(contender.detector.detect(crop)) for crop in crops)
