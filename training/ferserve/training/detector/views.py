"""One training picture: a pure function of its seed, so that a run can go on anywhere."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ferserve.faces.align import resize
from ferserve.faces.types import Image
from ferserve.training.detector.backgrounds import background
from ferserve.training.detector.crops import FaceCrop
from ferserve.training.detector.damage import damage
from ferserve.training.detector.geometry import MIRRORED, moved_points, overlaps, turned_boxes
from ferserve.training.detector.labelling import LabelledPhoto
from ferserve.training.detector.recipe import SceneSettings
from ferserve.training.detector.scene import SHRINK_FIRST, Placement, Scene, face_gain

_TRIES = 8
_MAX_SHARED = 0.05
_SCALES = (0.5, 2.5)
"""Of a photo in its view, times the scale that fits it in."""


class Studio:
    """Draws training pictures from photos and single faces.

    Args:
        photos: of the fit split only.
        crops: faces to paste.
    """

    def __init__(self, photos: Sequence[LabelledPhoto], crops: Sequence[FaceCrop], settings: SceneSettings) -> None:
        self.photos, self.crops, self.settings = photos, crops, settings

    def draw(self, rng: Generator, *, size_px: int) -> Scene:
        """One square picture of any kind, damaged at random."""
        kind = rng.random()
        settings = self.settings
        if kind < settings.photo_share and self.photos:
            scene = photo_view(
                self.photos[int(rng.integers(len(self.photos)))], rng, size_px=size_px, settings=settings
            )
            if rng.random() < 0.5:
                self._populate(scene, rng, count=int(rng.integers(1, 5)), largest_px=0.3 * size_px)
        else:
            empty = kind < settings.photo_share + settings.empty_share
            scene = self.compose(rng, height_px=size_px, width_px=size_px, count=0 if empty else None)
        scene.image = damage(scene.image, rng, share=settings.damage_share)
        return scene

    def compose(self, rng: Generator, *, height_px: int, width_px: int, count: int | None = None) -> Scene:
        """A background with faces, undamaged.

        Args:
            count: of faces tried; None draws it: few large ones or many small ones.
        """
        picture = background(self.photos, rng, height_px=height_px, width_px=width_px)
        scene = Scene(picture, min_exact_px=self.settings.min_exact_px)
        if count is None:
            count = round(math.exp(rng.uniform(0, math.log(self.settings.max_faces))))
        largest = self.settings.max_face_share * min(height_px, width_px) / math.sqrt(max(1, count))
        self._populate(scene, rng, count=count, largest_px=largest)
        return scene

    def _populate(self, scene: Scene, rng: Generator, *, count: int, largest_px: float) -> None:
        smallest = self.settings.min_face_px
        for _ in range(count):
            size = math.exp(rng.uniform(math.log(smallest), math.log(max(smallest, largest_px))))
            self.add_face(scene, rng, size_px=size)

    def add_face(self, scene: Scene, rng: Generator, *, size_px: float) -> None:
        """Paste one face where it leaves the others free, if a few tries find such a place."""
        place = self._free_place(scene, rng, size_px)
        if place is None:
            return
        limit = self.settings.max_rotation_deg
        placement = Placement(
            x_px=place[0],
            y_px=place[1],
            size_px=size_px,
            angle_deg=rng.uniform(-limit, limit)
            if rng.random() < self.settings.turned_share
            else rng.normal(0, min(8.0, limit / 2)),
            mirror=bool(rng.random() < 0.5),
            mask="oval" if rng.random() < 0.5 else "card",
        )
        gain = face_gain(rng) if rng.random() < 0.5 else None
        scene.paste(self.crops[int(rng.integers(len(self.crops)))], placement, gain=gain)
        if rng.random() < self.settings.occlusion_share:
            _occlude(scene, rng)

    def _free_place(self, scene: Scene, rng: Generator, size_px: float) -> tuple[float, float] | None:
        height, width = scene.image.shape[:2]
        margin = size_px / 2
        for _ in range(_TRIES):
            # One in ten may hang over the edge.
            reach = 0.0 if rng.random() < 0.1 else margin
            if width <= 2 * reach or height <= 2 * reach:
                continue
            x, y = rng.uniform(reach, width - reach), rng.uniform(reach, height - reach)
            box = np.array([[x - margin, y - margin, x + margin, y + margin]], np.float32)
            if overlaps(box, scene.boxes).max(initial=0) <= _MAX_SHARED:
                return x, y
        return None


def photo_view(photo: LabelledPhoto, rng: Generator, *, size_px: int, settings: SceneSettings) -> Scene:
    """A photo turned, scaled, shifted and mirrored into a square; beyond it black, as detectors pad, or reflected."""
    height, width = photo.image.shape[:2]
    fit = size_px / max(height, width)
    scale = fit * math.exp(rng.uniform(math.log(_SCALES[0]), math.log(_SCALES[1])))
    image, boxes, points = photo.image, photo.boxes, photo.landmarks
    shrink = (1.0, 1.0)
    if scale < SHRINK_FIRST:
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        image, shrink = resize(image, small), (small[0] / width, small[1] / height)
    angle = math.radians(rng.uniform(-0.5, 0.5) * settings.max_rotation_deg) if rng.random() < 0.3 else 0.0
    flip = -1.0 if rng.random() < 0.5 else 1.0
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[flip * cos, -sin], [flip * sin, cos]])
    # What is larger than the view moves about in it, what is smaller within its own room.
    spare = np.abs(size_px - scale * np.array([width, height])) / 2
    centre = size_px / 2 + rng.uniform(-1, 1, 2) * spare
    matrix = np.concatenate((linear, (centre - linear @ (width / 2, height / 2))[:, None]), axis=1)
    border = cv2.BORDER_CONSTANT if rng.random() < 0.4 else cv2.BORDER_REFLECT_101
    picture = _warped(image, matrix / np.array([*shrink, 1.0]), size_px, border)
    landmarks = moved_points(points, matrix)
    landmarks = landmarks[:, list(MIRRORED)] if flip < 0 else landmarks
    boxes = turned_boxes(boxes, matrix)
    meets = (boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] < size_px).all(axis=1)
    return Scene(
        picture,
        min_exact_px=settings.min_exact_px,
        boxes=boxes[meets],
        landmarks=landmarks[meets],
        exact=settings.exact_photos,
    )


def _warped(image: Image, matrix: NDArray[np.float64], size_px: int, border: int) -> Image:
    local = matrix.copy()
    local[:, 2] += local[:, :2] @ (0.5, 0.5) - 0.5
    size = (size_px, size_px)
    return np.asarray(cv2.warpAffine(image, local, size, flags=cv2.INTER_LINEAR, borderMode=border), dtype=np.uint8)


def _occlude(scene: Scene, rng: Generator) -> None:
    """A turned rectangle of one colour or of the scene's own pixels over a part of the last face."""
    x0, y0, x1, y1 = scene.boxes[-1].tolist()
    size = np.array([x1 - x0, y1 - y0])
    centre = np.array([x0, y0]) + size * rng.uniform(0, 1, 2)
    half = size * rng.uniform(0.1, 0.35, 2)
    angle = rng.uniform(0, math.pi)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = centre + (np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half) @ turn.T
    if rng.random() < 0.5:
        pixels = np.full((8, 8, 3), rng.integers(0, 256, 3), np.uint8)
    else:
        height, width = scene.image.shape[:2]
        y, x = int(rng.integers(0, height - 16)), int(rng.integers(0, width - 16))
        pixels = scene.image[y : y + 16, x : x + 16].copy()
    scene.cover(corners, pixels)
