"""Ray Data gives the rows of one process: the worker by itself, and a real local Ray with two of them."""

import io
import os
import subprocess
import sys
import tarfile
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ferserve.serving.bulk import ray_driver
from ferserve.serving.bulk.chunks import ScorerConfig
from ferserve.serving.bulk.disk import RealDisk
from ferserve.serving.bulk.local import bulk_engine, resolved
from ferserve.serving.bulk.manifest import Manifest
from ferserve.serving.bulk.ray_worker import TODO, RayWorker, WorkerConfig, scored_of
from ferserve.serving.bulk.sources import identity_of
from ferserve.serving.bulk.store import read_manifest
from ferserve.serving.cli import main
from ferserve.serving.engine import ModelsConfig
from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.requests import AnalyzeOptions, Priority

OPTIONS = AnalyzeOptions(priority=Priority.BULK)
# Ray's own processes take long to start where all cores are busy. What cannot be set is how long its raylet waits for
# the port of its agent: 15 s.
PATIENT = {
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@pytest.fixture
def pictures(tmp_path, face_photo):
    """Three photos, two of them alike, one of them in an archive; one that is none; a folder that is a loop."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(face_photo)
    (folder / "2.jpg").write_bytes(face_photo)
    (folder / "no.png").write_bytes(b"no picture")
    (folder / "loop").symlink_to(folder)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        entry = tarfile.TarInfo("x/3.jpg")
        entry.size = len(face_photo)
        archive.addfile(entry, io.BytesIO(face_photo))
    return folder


def rows_of(out):
    return sorted(pq.read_table(out).to_pylist(), key=lambda row: row["path"])


def same(left, right):
    for one, other in zip(left, right, strict=True):
        numbers = [name for name, value in one.items() if isinstance(value, float)]
        assert [other[name] for name in numbers] == pytest.approx([one[name] for name in numbers], rel=1e-6, abs=1e-5)
        assert {name: other[name] for name in other if name not in numbers} == {
            name: one[name] for name in one if name not in numbers
        }


def score_here(tmp_path, pictures, archive):
    with pytest.raises(SystemExit) as left:
        main(
            ["score", str(pictures), str(tmp_path / "a.tar"), "--out", str(tmp_path / "here"), "--model", str(archive)]
        )
    assert left.value.code == 0
    return rows_of(tmp_path / "here")


def test_a_worker_gives_the_rows_of_one_process(tmp_path, pictures, tiny_archive):
    expected = score_here(tmp_path, pictures, tiny_archive)
    engine, settings = resolved(bulk_engine(ModelsConfig(archives=(str(tiny_archive),)), threads=1), OPTIONS)
    config = WorkerConfig(
        scorer=ScorerConfig(engine=engine, options=OPTIONS, crops=None),
        manifest=Manifest.new(settings),
        with_paths=True,
        frames_per_s=1.0,
    )
    paths = [pictures / "1.jpg", pictures / "2.jpg", pictures / "no.png", tmp_path / "a.tar"]
    raw = [os.fsencode(path) for path in paths]
    todo = pa.table([raw, raw], schema=TODO)
    begun = read_manifest(RealDisk(), tmp_path / "here").settings
    assert {name: begun[name] for name in settings} == settings  # so that either may go on with the other's table
    worker = RayWorker(config)
    done = [row for table in worker(todo) for row in table.to_pylist()]
    worker.close()
    scored = [scored_of(row) for row in done]
    rows = sorted((row for one in scored for row in one.rows), key=lambda row: row["path"])
    same(expected, rows)
    assert [row["is_claimed"] for row in done] == [True, True, True, False]
    assert scored[0].item_id == config.manifest.item_id(identity_of(pictures / "1.jpg"))


@pytest.mark.e2e
@pytest.mark.long
def test_two_workers_of_a_real_ray_give_the_rows_of_one_process(ferserve_command, tmp_path, pictures, tiny_archive):
    pytest.importorskip("ray")
    expected = score_here(tmp_path, pictures, tiny_archive)
    command = [
        ferserve_command, "score", str(pictures), str(tmp_path / "a.tar"), "--out", str(tmp_path / "ray"),
        "--model", str(tiny_archive), "--engine", "ray", "--workers", "2",
    ]  # fmt: skip
    for _ in range(2):  # the second time there is nothing left to do
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | PATIENT)
        assert done.returncode == 0, done.stderr
        same(expected, rows_of(tmp_path / "ray"))
    assert "4 kept from earlier runs" in done.stderr


def test_without_ray_the_verb_says_what_to_install(tmp_path, pictures, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit) as left:
        main(["score", str(pictures), "--out", str(tmp_path / "out"), "--engine", "ray"])
    assert left.value.code == 2
    assert "ferserve[ray]" in " ".join(capfd.readouterr().err.split())


def test_a_ray_that_does_not_come_up_is_said_so_in_one_line():
    def init(**_settings):
        raise Exception("The current node timed out during startup.\nAnd much more.")  # noqa: TRY002 - as Ray does

    ray = SimpleNamespace(is_initialized=lambda: False, init=init)
    with (
        pytest.raises(WorkerFailedError, match=r"Ray did not start: The current node timed out during startup\.$"),
        ray_driver._running(ray),
    ):
        pytest.fail("it began")
