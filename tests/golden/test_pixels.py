"""The pixel path against stored pixels: what a model was trained on must be what it is served.

`python tests/golden/test_pixels.py` writes `pixels.npz` anew. That is right only together with a higher
`PIXELS_VERSION`, which makes every archive made before refuse to load.
"""

import io
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image as PillowImage

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.preprocess import PIXELS_VERSION, PreprocessSpec, face_crop, whole_crop
from ferserve.faces.types import Box, Detection

STORED = Path(__file__).with_name("pixels.npz")
PHOTO = skimage.data.astronaut()
FACE = Box(x0=177.5, y0=67.25, x1=270.0, y1=160.0)
POINTS = np.array([[204.3, 107.1], [243.9, 103.2], [224.0, 125.0], [211.0, 142.6], [240.0, 140.2]], np.float32)
GREY = PreprocessSpec(size_px=48, channels=1)
COLOUR = PreprocessSpec(size_px=40, channels=3, box_scale=1.3)


def _photo_as_jpeg():
    buffer = io.BytesIO()
    PillowImage.fromarray(PHOTO).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _made_now():
    by_box = Detection(box=FACE, score=1.0)
    by_landmarks = Detection(box=FACE, score=1.0, landmarks=POINTS)
    at_the_edge = Detection(box=Box(x0=-20.0, y0=400.0, x1=60.0, y1=540.0), score=1.0)
    # Stored as it is: what an encoder of another version writes is no matter of this path.
    jpeg = np.load(STORED)["jpeg"] if STORED.exists() else np.frombuffer(_photo_as_jpeg(), np.uint8)
    decoded = decode(jpeg.tobytes(), DecodeLimits(), min_side_px=200).pixels
    return {
        "jpeg": jpeg,
        "version": np.array(PIXELS_VERSION),
        "box_grey": face_crop(PHOTO, by_box, GREY),
        "box_colour": face_crop(PHOTO, by_box, COLOUR),
        "landmarks_grey": face_crop(PHOTO, by_landmarks, GREY),
        "landmarks_colour": face_crop(PHOTO, by_landmarks, COLOUR),
        "edge_colour": face_crop(PHOTO, at_the_edge, COLOUR),
        "whole_grey": whole_crop(PHOTO[:300], GREY),
        "whole_enlarged": whole_crop(PHOTO[100:130, 200:225], COLOUR),
        "decoded_smaller": decoded[60:110, 90:150],
    }


@pytest.fixture(scope="module")
def stored():
    return dict(np.load(STORED))


@pytest.fixture(scope="module")
def made_now():
    return _made_now()


@pytest.mark.parametrize(
    "name",
    [
        "box_grey",
        "box_colour",
        "landmarks_grey",
        "landmarks_colour",
        "edge_colour",
        "whole_grey",
        "whole_enlarged",
        "decoded_smaller",
    ],
)
def test_pixels_are_the_stored_ones(name, stored, made_now):
    assert made_now[name].shape == stored[name].shape
    # One step: processors with other vector units may round the other way.
    assert np.abs(made_now[name].astype(int) - stored[name]).max() <= 1


def test_every_stored_picture_is_compared(stored, made_now):
    assert set(stored) == set(made_now)
    assert int(stored["version"]) == PIXELS_VERSION


def test_hashes_are_the_stored_ones():
    assert GREY.sha256 == "1d18640d4e5c4cd184a83b47cb2fe37fab6dfc5e751791b9ba94c068811e7ffa"
    assert COLOUR.sha256 == "e0e0e99594dce52e6abb72f3fdb973f5433dc0495c130719632a50e4d0d2a878"


if __name__ == "__main__":
    np.savez_compressed(STORED, **_made_now())
