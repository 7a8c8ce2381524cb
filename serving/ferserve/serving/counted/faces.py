"""Faces: how many, what they showed, and what they showed where the archive was measured."""

from collections.abc import Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ferserve.faces.labels import EXPRESSIONS, Expression
from ferserve.serving.requests import ModelInfo

REFERENCE_SHARE: Final = "reference_share_"
"""Prefix of an archive's figures that say how often each expression came first where the archive was measured."""
_IMAGE_FACES: Final = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Faces:
    """Faces scored, and detections that were not."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.per_image = Histogram(
            "ferserve_image_faces", "Faces scored in one picture.", buckets=_IMAGE_FACES, registry=registry
        )
        self.images_without = Counter(
            "ferserve_images_without_face", "Pictures in which no face was found.", registry=registry
        )
        self.scored = Counter("ferserve_faces", "Faces scored.", ["model"], registry=registry)
        self.uncertain = Counter(
            "ferserve_uncertain_faces",
            "Faces whose top score lies below the archive's threshold.",
            ["model"],
            registry=registry,
        )
        self.tops = Counter(
            "ferserve_top_expression_faces",
            "Faces by the expression that scored highest.",
            ["model", "expression"],
            registry=registry,
        )
        self._reference = Gauge(
            "ferserve_reference_share",
            "Share of faces whose highest score was this where the archive was measured; absent if it does not say.",
            ["model", "expression"],
            registry=registry,
        )
        self.skipped = Counter(
            "ferserve_skipped_faces", "Detections from which no crop could be cut.", registry=registry
        )

    def image(self, faces: int) -> None:
        """One picture had so many."""
        self.per_image.observe(faces)
        if not faces:
            self.images_without.inc()

    def count(self, model: str, *, tops: Sequence[Expression], uncertain: int) -> None:
        """Faces were scored; `tops` has the first expression of each."""
        self.scored.labels(model).inc(len(tops))
        self.uncertain.labels(model).inc(uncertain)
        for top in tops:
            self.tops.labels(model, top.label).inc()

    def model_loaded(self, model: ModelInfo) -> None:
        """Count from zero, so that a first face is an increase; show what the archive was measured on."""
        self.scored.labels(model.name)
        self.uncertain.labels(model.name)
        for expression in EXPRESSIONS:
            self.tops.labels(model.name, expression.label)
            share = model.figures.get(REFERENCE_SHARE + expression.label)
            if share is not None:
                self._reference.labels(model.name, expression.label).set(share)

    def reference_gone(self, model: str) -> None:
        """Show nothing of an archive that serves no longer."""
        self._reference.remove_by_labels({"model": model})
