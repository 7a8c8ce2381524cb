"""An archive against a labelled split, as serving would score it: its own ONNX graph on crops of the one pixel path.

A run that is no archive is measured by its weights in torch.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ferserve.faces.precision import Precision
from ferserve.faces.preprocess import PreprocessSpec
from ferserve.faces.session import ScoringSession
from ferserve.training.data.audit import shared_pictures
from ferserve.training.data.crops import data_sha256, make_crops
from ferserve.training.data.errors import DataError
from ferserve.training.data.fer2013 import SPLITS, FaceSet, ferplus_majority
from ferserve.training.data.sources import read_source
from ferserve.training.data.splits import duplicates_of
from ferserve.training.evaluate import Report, make_report
from ferserve.training.scorers import Scorer, open_scorer

LabelKind = Literal["fer2013", "ferplus"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurement:
    """One archive on one split.

    Attributes:
        precision: what the archive's graph was run in.
        report: over the whole split, as the data set's protocol has it.
        without_duplicates: the same without pictures that also stand in Training; None where there are none to compare.
        without_similar: without those that an audit found in Training by their looks, too; None without an audit.
        dropped: faces of the split that the chosen labels leave out, by reason.
        data_sha256: of the split's pictures, labels and votes, before faces were left out.
        scores, labels: what the reports were computed from, shapes (N, 7) and (N,).
    """

    precision: Precision
    report: Report
    without_duplicates: Report | None
    without_similar: Report | None
    dropped: dict[str, int]
    data_sha256: str
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """The whole-split report's fields at the top, everything else beside them; ready for JSON."""
        clean, cleaner = self.without_duplicates, self.without_similar
        return asdict(self.report) | {
            "precision": self.precision,
            "without_duplicates": None if clean is None else asdict(clean),
            "without_similar": None if cleaner is None else asdict(cleaner),
            "dropped": self.dropped,
        }


def measure(
    scorer: ScoringSession | Scorer,
    faces: FaceSet,
    *,
    spec: PreprocessSpec,
    uncertain_below: float,
    train: FaceSet | None,
    labels: LabelKind = "fer2013",
    shared: NDArray[np.bool_] | None = None,
) -> Measurement:
    """Score every face of a split and compare with its labels.

    Args:
        train: Training, to find pictures of the split that stand in it too; None skips that.
        labels: the data set's own, or FERPlus's majority.
        shared: faces that an audit found in Training, shape (N,); None without an audit.
    Raises:
        DataError: the labels leave no face.
    """
    dropped: dict[str, int] = {}
    data_hash = data_sha256(faces)
    truth = faces.labels
    if labels == "ferplus":
        majority = ferplus_majority(faces.raw_votes)
        faces, truth, dropped = faces.take(majority.rows), majority.labels, majority.dropped
        shared = None if shared is None else shared[majority.rows]
    if len(faces) == 0:
        raise DataError(f"no face has a label of kind {labels}: dropped {dropped}")
    scores = scorer.score(make_crops(faces, spec))
    clean = None if train is None else ~duplicates_of(faces.images, train.images)

    def report_of(kept: NDArray[np.bool_] | None) -> Report | None:
        return None if kept is None else make_report(scores[kept], truth[kept], uncertain_below=uncertain_below)

    return Measurement(
        precision=scorer.precision,
        report=make_report(scores, truth, uncertain_below=uncertain_below),
        without_duplicates=report_of(clean),
        without_similar=report_of(None if shared is None else ~shared if clean is None else clean & ~shared),
        dropped=dropped,
        data_sha256=data_hash,
        scores=scores,
        labels=truth,
    )


def evaluate_archive(
    name_or_path: str,
    data: str,
    *,
    split: str,
    labels: LabelKind,
    threads: int,
    precision: Precision = "fp32",
    audit: Path | None = None,
) -> Measurement:
    """Measure an archive, or a run by its folder, on `NAME=DIR`: what `ferserve evaluate` does.

    Args:
        audit: what `ferserve data audit fer2013.SPLIT=DIR fer2013.train=DIR --pairs --out FILE` wrote.
    Raises:
        ArchiveError: no such archive, an altered one, or one that does not run in that precision here.
        DataError: the data set has no such split, or the run is not finished.
    """
    scorer = open_scorer(name_or_path, threads=threads, precision=precision)
    name, splits = read_source(data)
    if split not in splits:
        raise DataError(f"{name}: expected rows of split {split}, found splits {', '.join(splits)}")
    return measure(
        scorer,
        splits[split],
        spec=scorer.spec,
        uncertain_below=scorer.uncertain_below,
        train=splits.get("train") if split != "train" else None,
        labels=labels,
        shared=None if audit is None else shared_pictures(audit, f"{name}.{split}", SPLITS[split], len(splits[split])),
    )
