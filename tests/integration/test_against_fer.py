"""The comparison with `fer`: the real file that runs in its interpreter, with a made-up package of that name."""

import sys
from pathlib import Path

import pytest

from ferserve.serving.benchmarks.against import fer_processes, measure_against_fer
from ferserve.serving.benchmarks.transports import Work
from ferserve.serving.commands.bench_report import print_against
from ferserve.serving.commands.figures import plain
from ferserve.serving.cores import available_cores
from ferserve.serving.errors import StartError
from ferserve.v1 import expression_service_pb2 as service_pb

FER = """
class FER:
    def detect_emotions(self, image):
        assert image.shape == (64, 64, 3), image.shape
        print("what a library prints must not pass for an answer", file=__import__("sys").stderr)
        return [{}, {}]
"""


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """An interpreter that has a package named fer, which finds two faces in everything."""

    def make(source: str) -> Path:
        (tmp_path / "fer").mkdir()
        (tmp_path / "fer" / "__init__.py").touch()
        (tmp_path / "fer" / "fer.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return Path(sys.executable)

    return make


@pytest.fixture
def photo_file(photo, tmp_path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(photo)
    return path


async def test_both_take_turns_on_the_same_photos(grpc_gateway, made_up, photo, photo_file, capsys):
    body = service_pb.AnalyzeRequest(image=photo).SerializeToString()
    work = Work(name="photo.png", method="Analyze", body=body, timeout_s=30.0, faces=1)
    with fer_processes(made_up(FER), [photo_file, photo_file]) as fer:
        turn = fer.turn(0.05, processes=available_cores())
        assert len(turn.times_ms) >= 2 * available_cores(), "each photo at least once in each process"
        assert turn.faces == 2 * len(turn.times_ms)
        report = await measure_against_fer(grpc_gateway.target, [work], fer, turn_s=0.1)
    for comparison in (report.one_at_a_time, report.all_it_can):
        assert (comparison.gateway.faces_per_photo, comparison.fer.faces_per_photo) == (1.0, 2.0)
        expected = comparison.gateway.photos_per_s.value / comparison.fer.photos_per_s.value
        assert comparison.times_the_photos.value == pytest.approx(expected)
        assert comparison.times_the_photos.low <= expected <= comparison.times_the_photos.high
    assert {data for data, _, _ in grpc_gateway.analyzer.asked} == {photo}
    print_against(report)
    printed = capsys.readouterr().out
    assert "fer 25.10.3" in printed
    assert "1 caller of the gateway, 1 process of fer" in printed
    assert plain(report)["one_at_a_time"]["fer"]["faces_per_photo"] == 2.0


def test_a_fer_that_does_not_start_is_an_error(made_up, photo_file):
    with pytest.raises(StartError, match="fer ended with 1"), fer_processes(made_up("broken"), [photo_file]):
        pass
