"""`kill -9` while `ferserve score` runs, over the real engine and a made-up archive."""

import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.bulk import killed

from ferserve.faces.decode import DecodeLimits, decode

PICTURES = 60
LAST_WRITE = 25
"""A run that begins anew makes some 65, one a picture; so a table takes several kills."""


@pytest.fixture
def folder(tmp_path, face_photo):
    """Sixty small pictures, no two alike but for some copies, and some that are none."""
    pixels = cv2.resize(decode(face_photo, DecodeLimits()).pixels, (160, 160), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(0)
    place = tmp_path / "pictures"
    place.mkdir()
    for number in range(PICTURES):
        noisy = np.clip(pixels + noise.normal(0, 3, pixels.shape), 0, 255).astype(np.uint8)
        done, encoded = cv2.imencode(".jpg", noisy)
        assert done
        data = encoded.tobytes()
        (place / f"{number:02}.jpg").write_bytes(data[: len(data) // 2] if number % 10 == 9 else data)
    for number in range(3):
        (place / f"copy-{number}.jpg").write_bytes((place / f"{number:02}.jpg").read_bytes())
    return place


def rows(out: Path) -> Counter[tuple[object, ...]]:
    """The table without what may differ in the last digit."""
    return Counter(
        tuple(round(value, 3) if isinstance(value, float) else value for value in row.values())
        for row in pq.read_table(out).to_pylist()
    )


def score(folder, out, archive, *, killed_at: tuple[int, float] = (0, 0.0), processes: int = 1):
    launcher = [sys.executable, killed.__file__, *killed_at]
    command = [*launcher, "score", folder, "--out", out, "--model", archive]
    command += ["--commit-every", "0", "--threads", processes]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def check_kills(folder, tmp_path, archive, *, kills: int, seed: int) -> None:
    calm = score(folder, tmp_path / "calm", archive)
    assert calm.returncode == 0, calm.stderr
    expected = rows(tmp_path / "calm")
    assert set(expected.values()) == {1}
    moments = random.Random(seed)
    out, died, finished = tmp_path / "out", 0, 0
    while died < kills:
        killed_at = (moments.randint(1, LAST_WRITE), moments.uniform(0, 0.05))
        run = score(folder, out, archive, killed_at=killed_at, processes=moments.choice((1, 2)))
        if run.returncode != -signal.SIGKILL:
            assert run.returncode == 0, run.stderr
            assert rows(out) == expected
            finished += 1
            out = tmp_path / f"out-after-{died}"
            continue
        died += 1
        if list(out.glob("part-*.parquet")):
            assert rows(out) <= expected
    run = score(folder, out, archive)
    assert run.returncode == 0, run.stderr
    assert rows(out) == expected
    sys.stdout.write(f"\n{died} kills, {finished + 1} tables with the rows of an undisturbed run\n")


def test_three_kills_lose_nothing_and_repeat_nothing(folder, tmp_path, tiny_archive):
    check_kills(folder, tmp_path, tiny_archive, kills=3, seed=1)


@pytest.mark.long
def test_fifty_kills_lose_nothing_and_repeat_nothing(folder, tmp_path, tiny_archive):
    check_kills(folder, tmp_path, tiny_archive, kills=50, seed=2)
