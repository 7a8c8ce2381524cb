import re

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from ferserve.faces.errors import Reason
from ferserve.faces.labels import LABELS, Expression
from ferserve.serving.admission import Bound
from ferserve.serving.metrics import CONTENT_TYPE, Metrics
from ferserve.serving.observing import encoding
from ferserve.serving.outcomes import Drop
from ferserve.serving.requests import ModelInfo, Priority
from ferserve.serving.workers.circuit import CircuitState
from ferserve.serving.workers.replica import FailureCause


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def info(
    name: str = "mobilenet", version: str = "1", sha256: str = "a" * 64, figures: dict[str, float] | None = None
) -> ModelInfo:
    return ModelInfo(
        name=name,
        version=version,
        archive_sha256=sha256,
        preprocess_sha256="b" * 64,
        precision="fp32",
        architecture="MobileNet",
        paper="A paper",
        crop_size_px=48,
        crop_channels=1,
        temperature=1.0,
        uncertain_below=0.5,
        figures=figures or {},
        is_default=True,
    )


def test_requests_are_counted_and_timed_by_method_and_code(metrics: Metrics):
    metrics.request_done("Analyze", None, 0.02)
    metrics.request_done("Analyze", Reason.OVERLOADED, 0.001)
    assert value(metrics.registry, "ferserve_requests_total", method="Analyze", code="OK") == 1
    assert value(metrics.registry, "ferserve_requests_total", method="Analyze", code="OVERLOADED") == 1
    labels = {"method": "Analyze", "code": "OK"}
    assert value(metrics.registry, "ferserve_request_duration_seconds_sum", **labels) == pytest.approx(0.02)
    assert value(metrics.registry, "ferserve_request_duration_seconds_bucket", le="0.025", **labels) == 1
    assert value(metrics.registry, "ferserve_request_duration_seconds_bucket", le="0.01", **labels) == 0


def test_streams_and_their_frames_are_counted(metrics: Metrics):
    metrics.stream_opened()
    metrics.stream_opened()
    metrics.stream_closed()
    metrics.frame_done(None)
    metrics.frame_done(Reason.INVALID_IMAGE)
    metrics.frames_dropped(3)
    assert value(metrics.registry, "ferserve_open_streams") == 1
    assert value(metrics.registry, "ferserve_stream_frames_total", code="OK") == 1
    assert value(metrics.registry, "ferserve_stream_frames_total", code="INVALID_IMAGE") == 1
    assert value(metrics.registry, "ferserve_dropped_stream_frames_total") == 3


def test_a_batch_shows_its_size_its_waits_and_its_run(metrics: Metrics):
    batches = metrics.batches("mobilenet")
    batches.queued(3)
    batches.started([0.1, 0.3])
    batches.finished(2, 0.5, 0.4)
    batches.finished(2, 0.5, 0.0)
    batches.worker_failed(2)
    assert value(metrics.registry, "ferserve_queued_faces", model="mobilenet") == 3
    assert value(metrics.registry, "ferserve_batch_faces_sum", model="mobilenet") == 2
    assert value(metrics.registry, "ferserve_stage_duration_seconds_count", stage="queue") == 2
    assert value(metrics.registry, "ferserve_stage_duration_seconds_sum", stage="queue") == pytest.approx(0.4)
    assert value(metrics.registry, "ferserve_stage_duration_seconds_sum", stage="infer") == pytest.approx(1.0)
    error = "ferserve_latency_model_error_ratio"
    assert value(metrics.registry, f"{error}_count", model="mobilenet") == 1, "the second one was not foreseen"
    assert value(metrics.registry, f"{error}_sum", model="mobilenet") == pytest.approx(0.25)
    assert value(metrics.registry, "ferserve_worker_failed_faces_total", model="mobilenet") == 2


def test_a_worker_shows_whether_it_is_used_and_how_it_failed(metrics: Metrics):
    workers = metrics.workers("mobilenet")
    workers.circuit_changed("a:1", CircuitState.CLOSED)
    labels = {"model": "mobilenet", "worker": "a:1"}
    assert value(metrics.registry, "ferserve_worker_up", **labels) == 1
    assert value(metrics.registry, "ferserve_worker_failures_total", cause="timeout", **labels) == 0
    workers.worker_failed("a:1", FailureCause.TIMEOUT, "in words")
    workers.circuit_changed("a:1", CircuitState.OPEN)
    workers.batch_retried()
    assert value(metrics.registry, "ferserve_worker_up", **labels) == 0
    states = {
        state.value: value(metrics.registry, "ferserve_worker_circuit", state=state.value, **labels)
        for state in CircuitState
    }
    assert states == {"closed": 0, "open": 1, "half_open": 0}
    assert value(metrics.registry, "ferserve_worker_failures_total", cause="timeout", **labels) == 1
    assert value(metrics.registry, "ferserve_retried_batches_total", model="mobilenet") == 1


def test_what_was_dropped_before_computation_is_told_apart_by_stage_and_cause(metrics: Metrics):
    metrics.batches("mobilenet").dropped(Drop.EXPIRED, 4)
    metrics.preparation().dropped(Drop.CANCELLED, 1)
    name = "ferserve_dropped_before_compute_total"
    assert value(metrics.registry, name, stage="infer", cause="expired") == 4
    assert value(metrics.registry, name, stage="infer", cause="cancelled") == 0
    assert value(metrics.registry, name, stage="prepare", cause="cancelled") == 1


def test_preparation_shows_who_waits_and_for_how_long(metrics: Metrics):
    preparation = metrics.preparation()
    preparation.queued(5)
    preparation.started([0.2])
    preparation.finished(1, 9.0, 8.0)
    assert value(metrics.registry, "ferserve_waiting_images") == 5
    assert value(metrics.registry, "ferserve_stage_duration_seconds_sum", stage="turn") == pytest.approx(0.2)


def test_admission_shows_what_is_in_flight_and_what_ran_out(metrics: Metrics):
    metrics.in_flight(7)
    metrics.refused(Bound.FACES, Priority.BULK)
    assert value(metrics.registry, "ferserve_in_flight_images") == 7
    assert value(metrics.registry, "ferserve_refused_total", reason="faces", priority="bulk") == 1


def test_a_picture_without_a_face_is_counted_as_such(metrics: Metrics):
    metrics.image_scored("mobilenet", tops=[], uncertain=0)
    metrics.image_scored("mobilenet", tops=[Expression.HAPPY] * 3, uncertain=1)
    assert value(metrics.registry, "ferserve_images_without_face_total") == 1
    assert value(metrics.registry, "ferserve_image_faces_count") == 2
    assert value(metrics.registry, "ferserve_image_faces_sum") == 3
    assert value(metrics.registry, "ferserve_faces_total", model="mobilenet") == 3
    assert value(metrics.registry, "ferserve_uncertain_faces_total", model="mobilenet") == 1


def test_crops_count_as_faces_and_not_as_pictures(metrics: Metrics):
    metrics.faces_scored("mobilenet", tops=[Expression.SAD] * 5, uncertain=2)
    metrics.faces_skipped(1)
    assert value(metrics.registry, "ferserve_faces_total", model="mobilenet") == 5
    assert value(metrics.registry, "ferserve_image_faces_count") == 0
    assert value(metrics.registry, "ferserve_skipped_faces_total") == 1


def test_a_stage_is_timed(metrics: Metrics):
    metrics.stage("detect", 0.015)
    assert value(metrics.registry, "ferserve_stage_duration_seconds_sum", stage="detect") == pytest.approx(0.015)


def test_a_reloaded_archive_replaces_the_one_before_it(metrics: Metrics):
    metrics.archive_loaded(info(sha256="1" * 64))
    metrics.archive_loaded(info(name="dal-net"))
    metrics.archive_loaded(info(version="2", sha256="2" * 64))
    name = "ferserve_archive_info"
    assert (
        value(metrics.registry, name, model="mobilenet", version="1", archive_sha256="1" * 64, precision="fp32") is None
    )
    assert value(metrics.registry, name, model="mobilenet", version="2", archive_sha256="2" * 64, precision="fp32") == 1
    metrics.archive_unloaded("dal-net")
    metrics.archive_unloaded("dal-net")
    assert (
        value(metrics.registry, name, model="dal-net", version="1", archive_sha256="a" * 64, precision="fp32") is None
    )


def test_what_a_model_says_is_counted_by_expression_from_zero_on(metrics: Metrics):
    metrics.archive_loaded(info())
    name = "ferserve_top_expression_faces_total"
    assert value(metrics.registry, name, model="mobilenet", expression="fear") == 0
    metrics.faces_scored("mobilenet", tops=[Expression.FEAR, Expression.HAPPY, Expression.FEAR], uncertain=0)
    assert value(metrics.registry, name, model="mobilenet", expression="fear") == 2


def test_the_reference_is_the_loaded_archives_own_and_goes_with_it(metrics: Metrics):
    shares = {label: 0.1 * (place + 1) for place, label in enumerate(LABELS)}
    name = "ferserve_reference_share"
    metrics.archive_loaded(info(figures={f"reference_share_{label}": share for label, share in shares.items()}))
    for label, share in shares.items():
        assert value(metrics.registry, name, model="mobilenet", expression=label) == share
    metrics.archive_loaded(info(version="2"))
    assert all(value(metrics.registry, name, model="mobilenet", expression=label) is None for label in LABELS)


def test_a_forecast_that_was_half_of_what_it_took_counts_as_two(metrics: Metrics):
    metrics.forecast(0.5, 1.0)
    assert value(metrics.registry, "ferserve_forecast_ratio_sum") == 2
    assert value(metrics.registry, "ferserve_forecast_ratio_bucket", le="1.33") == 0
    assert value(metrics.registry, "ferserve_forecast_ratio_bucket", le="2.0") == 1


def test_encoding_is_a_stage(metrics: Metrics):
    with encoding(metrics):
        pass
    assert value(metrics.registry, "ferserve_stage_duration_seconds_count", stage="encode") == 1


def test_two_gateways_do_not_share_counters():
    first, second = Metrics(), Metrics()
    first.faces_skipped(1)
    assert value(second.registry, "ferserve_skipped_faces_total") == 0


def test_the_exposition_parses_and_every_name_is_ours_and_says_its_unit(metrics: Metrics):
    metrics.request_done("Analyze", None, 0.02)
    metrics.archive_loaded(info())
    families = list(text_string_to_metric_families(metrics.exposition().decode()))
    names = {family.name for family in families if not family.name.endswith("_created")}
    assert "ferserve_build_info" in names
    assert all(re.fullmatch(r"ferserve_[a-z_]+", name) for name in names)
    assert all(name.endswith("_seconds") for name in names if "duration" in name)
    assert all(family.documentation.endswith(".") for family in families if family.name in names)
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
