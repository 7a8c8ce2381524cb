"""`ferserve score` on a real disk that fills up, with processes that are killed, and on a real video."""

import json
import os
import random
import signal
import subprocess
from collections import Counter
from contextlib import asynccontextmanager

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from ferserve.faces.decode import DecodeLimits, decode
from ferserve.serving.bulk.chunks import ScorerConfig
from ferserve.serving.bulk.lane import ProcessLane
from ferserve.serving.bulk.local import bulk_engine, lanes_scoring, resolved
from ferserve.serving.bulk.run import Job, run_bulk
from ferserve.serving.bulk.sources import Finder
from ferserve.serving.engine import ModelsConfig
from ferserve.serving.requests import AnalyzeOptions, Priority

pytestmark = pytest.mark.e2e
OPTIONS = AnalyzeOptions(priority=Priority.BULK)
PICTURES = 30


@pytest.fixture
def face(face_photo):
    return cv2.resize(decode(face_photo, DecodeLimits()).pixels, (160, 160), interpolation=cv2.INTER_AREA)


@pytest.fixture
def folder(tmp_path, face):
    """Small pictures, no two alike."""
    place = tmp_path / "pictures"
    place.mkdir()
    noise = np.random.default_rng(0)
    for number in range(PICTURES):
        noisy = np.clip(face + noise.normal(0, 3, face.shape), 0, 255).astype(np.uint8)
        assert cv2.imwrite(str(place / f"{number:02}.jpg"), cv2.cvtColor(noisy, cv2.COLOR_RGB2BGR))
    return place


def rows(out):
    return Counter(
        tuple(round(value, 3) if isinstance(value, float) else value for value in row.values())
        for row in pq.read_table(out).to_pylist()
    )


# Beneath: a disk of its own with room for next to nothing, which is given more room for the second run.
FULL_DISK = """
mount -t tmpfs -o size=64k none "$OUT" || exit 77
"$@"; echo "first $?"
mount -o remount,size=16m "$OUT"
"$@"; echo "second $?"
mkdir "$KEPT"; cp "$OUT"/part-* "$KEPT"
"""


def test_a_full_disk_is_said_so_and_with_more_room_the_same_command_goes_on(
    ferserve_command, folder, tiny_archive, tmp_path
):
    out = tmp_path / "out"
    out.mkdir()
    score = [ferserve_command, "score", folder, "--model", tiny_archive, "--commit-every", "0"]
    command = [*score, "--out", out]
    environment = os.environ | {"OUT": str(out), "KEPT": str(tmp_path / "kept")}
    shell = ["unshare", "--mount", "--map-root-user", "sh", "-c", FULL_DISK, "sh", *map(str, command)]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False)
    if "first" not in done.stdout:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    told = " ".join(done.stderr.split())
    assert done.stdout.splitlines() == ["first 1", "second 0"], told
    assert "the disk is full" in told
    assert "run the same command again" in told
    subprocess.run([*map(str, score), "--out", tmp_path / "calm"], capture_output=True, check=True)
    assert rows(tmp_path / "kept") == rows(tmp_path / "calm")


async def test_processes_that_are_killed_on_the_way_lose_nothing_and_repeat_nothing(folder, tiny_archive, tmp_path):
    engine, settings = resolved(bulk_engine(ModelsConfig(archives=(str(tiny_archive),)), threads=2), OPTIONS)
    lanes = [ProcessLane(ScorerConfig(engine=engine, options=OPTIONS, crops=None)) for _ in range(2)]
    chance = random.Random(1)
    killed = set()

    def kill_one(tally):
        lane = chance.choice(lanes)
        # Each life once, and not so often that an innocent picture is there twice in a row.
        if tally.pictures in (3, 11, 19) and lane.process_id not in killed:
            killed.add(lane.process_id)
            os.kill(lane.process_id, signal.SIGKILL)

    @asynccontextmanager
    async def scoring():
        async with lanes_scoring(lanes, engine, settings) as ready:
            yield ready

    async def score(name, report):
        job = Job(finder=Finder(sources=[str(folder)]), out=tmp_path / name, commit_every_s=0.0)
        await run_bulk(job, scoring(), report)
        return rows(tmp_path / name)

    shaken = await score("shaken", kill_one)
    assert killed
    lanes[:] = [ProcessLane(ScorerConfig(engine=engine, options=OPTIONS, crops=None)) for _ in range(2)]
    assert shaken == await score("calm", lambda _tally: None)


def test_a_video_has_rows_by_time_a_timeline_and_an_annotated_copy(ferserve_command, face, tiny_archive, tmp_path):
    video = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (160, 160))
    for number in range(30):
        frame = cv2.cvtColor(face, cv2.COLOR_RGB2BGR) if number >= 10 else np.full((160, 160, 3), 128, np.uint8)
        writer.write(frame)
    writer.release()

    def run(*arguments):
        done = subprocess.run(
            [ferserve_command, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = json.loads(
        run("score", video, "--fps", "2", "--out", tmp_path / "s.parquet", "--model", tiny_archive, "--json")
    )
    assert (told["pictures"], told["without_face"], told["faces"]) == (6, 2, 4)
    found = [(row["time_s"], row["status"]) for row in pq.read_table(tmp_path / "s.parquet").to_pylist()]
    assert found == [(0.0, "no_face"), (0.5, "no_face"), (1.0, "ok"), (1.5, "ok"), (2.0, "ok"), (2.5, "ok")]
    printed = run("report", tmp_path / "s.parquet", "--annotate", video).splitlines()
    assert printed == [str(tmp_path / "s.html"), str(tmp_path / "clip-annotated.mp4")]
    assert '<svg class="timeline"' in (tmp_path / "s.html").read_text()
    shown, drawn = _frames(video), _frames(printed[1])
    assert len(drawn) == len(shown) == 30
    changes = [int(np.abs(one.astype(int) - other).max()) for one, other in zip(shown, drawn, strict=True)]
    assert max(changes[:9]) < 50
    assert min(changes[11:]) > 100  # a box's line, which no codec makes


def _frames(video):
    capture = cv2.VideoCapture(str(video))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


def test_the_speed_of_a_run_is_measured_beside_its_computation_alone(ferserve_command, folder, tiny_archive):
    command = [
        ferserve_command, "bench", "score", folder, "--pictures", "6", "--rounds", "1", "--threads", "2",
        "--model", tiny_archive, "--json",
    ]  # fmt: skip
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["pictures"], told["faces"], len(told["shares"])) == (6, 6, 1)
    assert told["shares"][0] == pytest.approx(told["run_per_s"][0] / told["alone_per_s"][0])
