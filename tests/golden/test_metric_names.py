"""Dashboards, alerts and autoscalers hold on to names and labels: what changes here breaks them."""

from pathlib import Path

from ferserve.faces.errors import Reason
from ferserve.faces.labels import Expression
from ferserve.serving.admission import Bound
from ferserve.serving.metrics import Metrics
from ferserve.serving.outcomes import Drop
from ferserve.serving.requests import ModelInfo, Priority
from ferserve.serving.workers.circuit import CircuitState

NAMES = Path(__file__).with_name("metrics.txt")
MODEL = ModelInfo(
    name="mobilenet",
    version="1",
    archive_sha256="a" * 64,
    preprocess_sha256="b" * 64,
    precision="int8",
    architecture="MobileNet",
    paper="A paper",
    crop_size_px=48,
    crop_channels=1,
    temperature=1.0,
    uncertain_below=0.5,
    figures={"reference_share_happy": 0.5},
    is_default=True,
)


def exercised() -> Metrics:
    metrics = Metrics()
    metrics.archive_loaded(MODEL)
    metrics.in_flight_limit(64)
    metrics.request_done("Analyze", Reason.OVERLOADED, 0.02)
    metrics.stage("decode", 0.01)
    metrics.encoded(0.001)
    metrics.refused(Bound.TIME, Priority.BULK)
    metrics.image_scored("mobilenet", tops=[Expression.HAPPY], uncertain=1)
    metrics.batches("mobilenet").dropped(Drop.EXPIRED, 1)
    metrics.workers("mobilenet").circuit_changed("worker-0:7070", CircuitState.CLOSED)
    metrics.preparation().dropped(Drop.CANCELLED, 1)
    metrics.frame_done(None)
    metrics.certificate("server", lambda: 0.0)
    return metrics


def described(metrics: Metrics) -> list[str]:
    """`type name{labels}` of every metric that /metrics shows."""
    lines = set()
    for family in metrics.registry.collect():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        lines.add(f"{family.type} {family.name}{{{','.join(sorted(labels))}}}")
    return sorted(lines)


def test_names_types_and_labels_are_those_that_operators_know():
    assert described(exercised()) == NAMES.read_text(encoding="utf-8").splitlines()


def test_no_label_takes_what_a_caller_sends():
    known = {"method", "code", "stage", "cause", "model", "expression", "reason", "priority", "version", "python",
             "onnxruntime", "archive_sha256", "precision", "worker", "state", "certificate"}  # fmt: skip
    shown = {label for line in described(exercised()) for label in line.rpartition("{")[2].rstrip("}").split(",")}
    assert shown - {""} <= known
