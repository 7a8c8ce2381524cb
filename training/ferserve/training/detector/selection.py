"""What is decided on the selection photos: how a run is doing, and the score from which a detection counts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ferserve.faces.align import resize
from ferserve.faces.detectors.decoding import Candidates, decode
from ferserve.faces.detectors.onnx import MAX_OVERLAP
from ferserve.faces.types import Detection, Image
from ferserve.training.data.expw_scenes import Photo
from ferserve.training.detector.export import OUTPUT_ORDER, YuNetShape
from ferserve.training.detector.labelling import FACE_SCORE, HINT_SCORE
from ferserve.training.detector.matching import Match, match, summarise
from ferserve.training.detector.run import Check
from ferserve.training.detector.teacher import Teacher, pad_to_stride

SIZES_PX: Final = (320, 640)
"""Longer sides that photos are brought down to: the two that most pictures are searched at."""
CHECK_SCORE: Final = 0.5
CANDIDATE_SCORES: Final = tuple(round(0.01 * step, 2) for step in range(20, 81))
"""Thresholds that are tried, 0.20 to 0.80."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exam:
    """One photo at one size with the teacher's faces at that size and the photo's own labels.

    Attributes:
        image: RGB uint8, sides multiples of the coarsest stride.
        size_px: the one of `SIZES_PX` it stands for; the largest where a photo is smaller.
        reference: the teacher's faces at its own threshold.
        labelled: boxes in pixels of `image`, shape (N, 4).
    """

    image: Image
    size_px: int
    reference: Candidates
    labelled: NDArray[np.float32]


@dataclass(slots=True, kw_only=True, eq=False)
class Selection:
    """Photos to decide on, and what the teacher says of them.

    Attributes:
        exams: each photo at each of `SIZES_PX` that makes it smaller, or at its own size.
    """

    exams: list[Exam] = field(default_factory=list)

    @classmethod
    def prepare(cls, photos: Sequence[Photo], teacher: Teacher) -> "Selection":
        """Read the photos and ask the teacher once."""
        exams = []
        for photo in photos:
            image = photo.read()
            height, width = image.shape[:2]
            for scale, size_px in {min(1.0, size / max(height, width)): size for size in SIZES_PX}.items():
                small = resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))
                picture = pad_to_stride(small)
                reference = teacher.faces(picture, min_score=FACE_SCORE)
                labelled = photo.labelled * np.float32(scale)
                exams.append(Exam(image=picture, size_px=size_px, reference=reference, labelled=labelled))
        return cls(exams=exams)

    def check(self, net: nn.Module) -> Check:
        """Measure a net against the teacher's faces at `CHECK_SCORE`."""
        rates = summarise(
            _against_teacher(self.exams, [net_faces(net, exam.image) for exam in self.exams], CHECK_SCORE)
        )
        return Check(
            recall=rates.recall,
            unmatched_per_photo=rates.unmatched_per_photo,
            landmark_error=1.0 if rates.landmark_error is None else rates.landmark_error,
        )

    def threshold(self, net: nn.Module) -> float:
        """Choose the score from which a detection counts.

        Returns:
            The lowest at which the net leaves, at each of `SIZES_PX`, no more detections without a labelled face than
            the teacher does at its own threshold; the highest tried if none does.
        """
        found = [net_faces(net, exam.image) for exam in self.exams]
        teacher = self._unmatched([exam.reference.detections() for exam in self.exams])
        for score in CANDIDATE_SCORES:
            unmatched = self._unmatched([_above(faces, score) for faces in found])
            if all(unmatched[size_px] <= allowed for size_px, allowed in teacher.items()):
                return score
        return CANDIDATE_SCORES[-1]

    def _unmatched(self, found: Sequence[Sequence[Detection]]) -> Counter[int]:
        """Detections without a labelled face, by the exams' `size_px`."""
        counts: Counter[int] = Counter()
        for faces, exam in zip(found, self.exams, strict=True):
            counts[exam.size_px] += match(faces, exam.labelled).unmatched
        return counts


def net_faces(net: nn.Module, image: Image, *, min_score: float = HINT_SCORE) -> list[Detection]:
    """Faces that a net in eval mode finds, decoded as serving does.

    Args:
        image: RGB uint8, sides multiples of the coarsest stride.
    """
    blob = torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1])).permute(2, 0, 1)[None].float()
    device = next(net.parameters()).device
    with torch.inference_mode():
        maps = [part.float().cpu().numpy() for part in YuNetShape(net)(blob.to(device))]
    named = dict(zip(OUTPUT_ORDER, maps, strict=True))
    found = decode(named, columns_px=image.shape[1], min_score=min_score)
    return found.suppressed(max_overlap=MAX_OVERLAP).detections()


def _above(faces: Sequence[Detection], score: float) -> list[Detection]:
    return [face for face in faces if face.score >= score]


def _against_teacher(exams: Sequence[Exam], found: Sequence[Sequence[Detection]], score: float) -> list[Match]:
    return [
        match(_above(faces, score), exam.reference.boxes, exam.reference.landmarks)
        for exam, faces in zip(exams, found, strict=True)
    ]
