"""From a run to what ships: the ONNX file, its figures and its card."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ferserve.training.detector.card import ShippedDetector, render_detector_card
from ferserve.training.detector.evaluate import DetectorReport, evaluate_detector
from ferserve.training.detector.export import export_detector
from ferserve.training.detector.recipe import DetectorRecipe
from ferserve.training.detector.run import load_net
from ferserve.training.detector.selection import Selection
from ferserve.training.detector.teacher import Teacher
from ferserve.training.detector.training import SOURCES_FILE, START_KEY, split_of

MAX_BYTES: Final = 1_000_000
"""What the wheel has room for."""


def ship(
    run: Path, *, photos: Path, teacher_file: Path, faces: Mapping[str, Path], folder: Path
) -> tuple[ShippedDetector, DetectorReport]:
    """Write `NAME.onnx`, `NAME.json` and `NAME.md` of a run as it stands.

    The threshold is chosen on the selection photos; the figures are of the set-aside ones.

    Raises:
        DataError: no such run, or the data are missing.
    """
    net, recipe, epoch = load_net(run)
    split = split_of(recipe, photos)
    teacher = Teacher(teacher_file)
    min_score = Selection.prepare(split.selection, teacher).threshold(net)
    shipped = _write(export_detector(net, min_score=min_score), recipe, folder, epoch=epoch, min_score=min_score)
    report = evaluate_detector(
        str(shipped.path), photos=photos, recipe=recipe, held_aside=True, teacher_file=teacher_file, faces=faces
    )
    figures = {"recipe_sha256": recipe.sha256, "teacher_sha256": teacher.sha256, "epoch": epoch, **report.to_dict()}
    shipped.path.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n")
    start = json.loads((run / SOURCES_FILE).read_text())[START_KEY]
    card = render_detector_card(recipe, shipped, report, teacher_sha256=teacher.sha256, start_sha256=start)
    shipped.path.with_suffix(".md").write_text(card)
    return shipped, report


def _write(content: bytes, recipe: DetectorRecipe, folder: Path, *, epoch: int, min_score: float) -> ShippedDetector:
    if len(content) > MAX_BYTES:
        raise ValueError(f"detector: expected at most {MAX_BYTES} bytes, got {len(content)}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{recipe.name}.onnx"
    path.write_bytes(content)
    return ShippedDetector(
        path=path,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        epoch=epoch,
        min_score=min_score,
    )
