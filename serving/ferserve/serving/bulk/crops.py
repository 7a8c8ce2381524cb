"""Each face's crop as a PNG, named after the picture's content: writing it again changes nothing."""

from pathlib import Path
from typing import Final

import cv2

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.errors import DegenerateFaceError
from ferserve.faces.preprocess import RGB, PreprocessSpec, face_crop
from ferserve.serving.bulk.disk import UNFINISHED, refused
from ferserve.serving.bulk.feed import Content
from ferserve.serving.bulk.rows import Outcome, Row, rows_of
from ferserve.serving.requests import ImageAnalysis

CROP: Final = PreprocessSpec(size_px=224, channels=RGB, box_scale=1.3)
"""Wider than what models take, and in colour: for people to look at."""


class CropWriter:
    """Writes into one folder, in as many folders below it as two hex digits give; safe for several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, content: Content, analysis: ImageAnalysis) -> list[str | None]:
        """Cut out all faces of a picture; their files' names below the folder, None where nothing can be cut.

        Raises:
            OutputError: the disk refuses.
        """
        pixels = decode(content.data, DecodeLimits()).pixels
        names: list[str | None] = []
        for number, face in enumerate(analysis.faces):
            try:
                crop = face_crop(pixels, face.detection, CROP)
            except DegenerateFaceError:
                names.append(None)
                continue
            done, encoded = cv2.imencode(".png", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))
            assert done
            names.append(self._write(f"{content.sha256.hex()}-{number}.png", encoded.tobytes()))
        return names

    def _write(self, name: str, data: bytes) -> str:
        path = self._folder / name[:2] / name
        unfinished = path.with_name(f"{name}{UNFINISHED}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(data)
            unfinished.replace(path)
        except OSError as error:
            raise refused(path, error) from error
        return f"{name[:2]}/{name}"


def rows_with_crops(content: Content, outcome: Outcome, crops: CropWriter | None) -> list[Row]:
    """A picture's rows without a path, and its faces' crops where they were asked for.

    Raises:
        OutputError: the disk refuses.
    """
    rows = rows_of(None, outcome, content=content.sha256)
    if crops is None or isinstance(outcome, Exception) or not outcome.faces:
        return rows
    return [row | {"crop": name} for row, name in zip(rows, crops.write(content, outcome), strict=True)]
