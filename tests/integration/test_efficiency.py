"""A gateway beside the same pipeline without a wire, both real."""

from dataclasses import dataclass
from time import process_time

import pytest

from ferserve.serving.admin import AdminConfig
from ferserve.serving.analyzer_config import AnalyzerConfig
from ferserve.serving.app import Gateway
from ferserve.serving.benchmarks.efficiency import EfficiencyConfig, measure_efficiency
from ferserve.serving.benchmarks.payloads import photo_work, shrunk
from ferserve.serving.config import ServeConfig
from ferserve.serving.engine import ModelsConfig, open_archives, running_engine
from ferserve.serving.grpc_api import GrpcConfig
from ferserve.serving.metrics import Metrics
from ferserve.serving.requests import AnalyzeOptions
from ferserve.serving.rest_api import HttpConfig
from ferserve.serving.workers.embedded import EmbeddedConfig


@dataclass
class SameProcess:
    """The gateway of this test has no process of its own."""

    target: str

    def cpu_s(self) -> float:
        return process_time()


async def test_both_sides_have_their_turns_and_their_figures(tiny_archive, face_photo):
    config = ServeConfig(
        models=ModelsConfig(archives=(str(tiny_archive),)),
        grpc=GrpcConfig(port=0),
        http=HttpConfig(port=0),
        admin=AdminConfig(port=0),
        analyzer=AnalyzerConfig(threads=1),
        embedded=EmbeddedConfig(threads=1),
    )
    metrics = Metrics()
    async with running_engine(config, open_archives(config.models), metrics) as engine:
        gateway = Gateway(config, engine, metrics)
        await gateway.start()
        work = photo_work("face", shrunk(face_photo, 128), AnalyzeOptions(), 60.0)
        report = await measure_efficiency(
            engine.analyzer,
            SameProcess(gateway.addresses["gRPC"]),
            work,
            EfficiencyConfig(callers=2, turns=1, turn_s=1.5),
        )
        await gateway.stop(0)
    inside, outside = report.in_process, report.over_grpc
    assert report.efficiency.value == pytest.approx(outside.photos_per_s.value / inside.photos_per_s.value)
    assert min(inside.cpu_ms_per_photo, outside.cpu_ms_per_photo, inside.photos_per_s.value) > 0
    requests = metrics.registry.get_sample_value("ferserve_requests_total", {"method": "Analyze", "code": "OK"})
    analyses = metrics.registry.get_sample_value("ferserve_image_faces_count")
    assert 0 < requests < analyses, "one side goes without a wire"
