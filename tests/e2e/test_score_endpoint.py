"""The same folder scored here and by a real gateway."""

import subprocess

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.e2e


@pytest.fixture
def pictures(tmp_path, face_photo):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "1.jpg").write_bytes(face_photo)
    (folder / "2.jpg").write_bytes(face_photo + b"\0")
    (folder / "cut.jpg").write_bytes(face_photo[:2000])
    (folder / "no.png").write_bytes(b"no picture")
    return folder


def test_rows_are_those_that_are_computed_here(ferserve_command, start_gateway, tiny_archive, pictures, tmp_path):
    gateway = start_gateway("--model", str(tiny_archive))

    def rows(name, *arguments):
        command = [ferserve_command, "score", str(pictures), "--out", str(tmp_path / name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return sorted(pq.read_table(tmp_path / name).to_pylist(), key=lambda row: row["path"])

    here = rows("here", "--model", str(tiny_archive))
    there = rows("there", "--endpoint", gateway.grpc)
    assert [row["status"] for row in here] == ["ok", "ok", "error", "error"]
    for own, its in zip(here, there, strict=True):
        numbers = [name for name, value in own.items() if isinstance(value, float)]
        assert [its[name] for name in numbers] == pytest.approx([own[name] for name in numbers], rel=0, abs=1e-5)
        assert {name: value for name, value in its.items() if name not in numbers} == {
            name: value for name, value in own.items() if name not in numbers
        }
