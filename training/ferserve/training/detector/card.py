"""The card of a detector: what it is, what it was made from, what was measured, what was not. Markdown, generated."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ferserve.training.detector.contenders import TEACHER
from ferserve.training.detector.evaluate import DetectorFigures, DetectorReport
from ferserve.training.detector.matching import Rates
from ferserve.training.detector.recipe import DetectorRecipe
from ferserve.training.detector.tables import percent, share, size_names

_HEAD: Final = """\
A face detector without anchors, {architecture}, {start}. Takes BGR pictures, 0 to 255, sides multiples of
32; gives box, score and five landmarks of each face in YuNet's twelve outputs (Wu, Peng and Yu 2023). {size} bytes; a
detection counts from score {min_score:.2f}, chosen on {selection} photos of their own.
"""
_SOURCES: Final = """\
| source | role | terms |
|---|---|---|
| YuNet 2023mar of the OpenCV zoo, {teacher} | {teacher_role} | Apache-2.0 |
| ExpW photos (Zhang et al. 2018) | views, backgrounds; {selection} for the threshold, {aside} set aside | research |
| ExpW face crops, at most {crops} | pasted into scenes | research |
| LFW face crops, at most {crops} | pasted into scenes | research benchmark |
| muxspace face crops, at most {crops} | pasted into scenes | Apache-2.0 |

Recipe {recipe}, epoch {epoch} of {epochs}, seed {seed}. Clearance for commercial use of the data is the user's own.
"""
_NOT_MEASURED: Final = """\
- Demographic groups: the photos carry no such labels, so differences by age, gender or skin colour were not measured.
- Faces turned further than their two eyes can be seen, faces upside down, masks, drawings.
- Recall of every face there is: the labels miss some, and the teacher misses others.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedDetector:
    """A detector's file.

    Attributes:
        bytes: its size.
        epoch: of the run, counted from 1.
        min_score: the threshold in its metadata.
    """

    path: Path
    bytes: int
    sha256: str
    epoch: int
    min_score: float


def render_detector_card(
    recipe: DetectorRecipe,
    shipped: ShippedDetector,
    report: DetectorReport,
    *,
    teacher_sha256: str,
    start_sha256: str | None,
) -> str:
    """Write the card from the figures themselves.

    Args:
        report: of the set-aside photos.
        start_sha256: of the file that the start weights are from; None if they were random.
    """
    facts: dict[str, Any] = {
        "architecture": recipe.architecture,
        "start": "trained from random weights" if start_sha256 is None else f"trained on from SHA-256 {start_sha256}",
        "teacher_role": "teacher" if start_sha256 != teacher_sha256 else "start weights and teacher",
        "size": shipped.bytes,
        "min_score": shipped.min_score,
        "selection": recipe.selection_photos,
        "aside": recipe.aside_photos,
        "teacher": f"SHA-256 {teacher_sha256}",
        "crops": recipe.scenes.faces_per_source,
        "recipe": recipe.sha256,
        "epoch": shipped.epoch,
        "epochs": recipe.epochs,
        "seed": recipe.seed,
    }
    lines = [
        f"# {recipe.name} {recipe.version}",
        "",
        _HEAD.format(**facts),
        "## Figures",
        "",
        f"{report.photos} photos that were set aside before anything was composed; one thread, in turn.",
        "",
        *_figures(report),
        "",
        "## Made from",
        "",
        _SOURCES.format(**facts),
        "## Not measured",
        "",
        _NOT_MEASURED,
    ]
    return "\n".join(lines)


def _figures(report: DetectorReport) -> list[str]:
    names = [name if name == TEACHER or index else "this detector" for index, name in enumerate(report.detectors)]
    rows: list[tuple[str, Callable[[DetectorFigures], str]]] = [
        ("recall of labelled faces", lambda f: share(f.labelled.found, f.labelled.faces)),
        ("detections without a label a photo", lambda f: f"{f.labelled.unmatched_per_photo:.2f}"),
        ("recall of the teacher's faces at 0.6", lambda f: _recall(f.teacher)),
        ("detections that are none of these a photo", lambda f: _unmatched(f.teacher)),
        (
            "landmark error over the eye distance, mean",
            lambda f: percent(None if f.teacher is None else f.teacher.landmark_error),
        ),
    ]
    rows += [(f"the teacher's faces, {name}", _of_size(index)) for index, name in enumerate(size_names())]
    rows += [
        (
            "faces of 20 px and more in composed 1080p crowds of 16",
            lambda f: _recall(None if f.crowds is None else f.crowds.at_default),
        ),
        ("the same at full size", lambda f: _recall(None if f.crowds is None else f.crowds.at_full)),
        (
            f"of {report.empty_crops} crops where the teacher finds nothing at 0.1, with a face",
            lambda f: "-" if f.crops_with_face is None else str(f.crops_with_face),
        ),
    ]
    first = next(iter(report.detectors.values()))
    rows += [(f"ms a photo, {size}", _time_of(size)) for size in first.ms]
    head = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    body = [f"| {title} | {' | '.join(cell(f) for f in report.detectors.values())} |" for title, cell in rows]
    return head + body


def _recall(rates: Rates | None) -> str:
    return "-" if rates is None else share(rates.found, rates.faces)


def _unmatched(rates: Rates | None) -> str:
    return "-" if rates is None else f"{rates.unmatched_per_photo:.2f}"


def _of_size(index: int) -> Callable[[DetectorFigures], str]:
    def cell(figures: DetectorFigures) -> str:
        rates = figures.teacher or figures.labelled
        faces, found = rates.by_size[index]
        return share(found, faces)

    return cell


def _time_of(size: str) -> Callable[[DetectorFigures], str]:
    return lambda figures: f"{figures.ms[size]:.2f}"
