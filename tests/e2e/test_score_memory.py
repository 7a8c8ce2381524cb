"""What a run holds does not grow with the pictures that it scores."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from ferserve.faces.decode import DecodeLimits, decode

pytestmark = [pytest.mark.e2e, pytest.mark.long]
FEW, MANY = 1_000, int(os.environ.get("FERSERVE_TEST_PICTURES", "100000"))
LOOK_EVERY_S = 0.2
IN_A_FOLDER = 10_000
MAX_GROWTH_BYTES = 40 * 10**6


@pytest.fixture
def folder(tmp_path, face_photo):
    """Many small pictures, no two with the same bytes."""
    pixels = decode(face_photo, DecodeLimits()).pixels
    done, encoded = cv2.imencode(".jpg", cv2.resize(pixels, (80, 80), interpolation=cv2.INTER_AREA))
    assert done
    for first in range(0, MANY, IN_A_FOLDER):
        place = tmp_path / "pictures" / f"{first:06}"
        place.mkdir(parents=True)
        for number in range(first, first + IN_A_FOLDER):
            # What comes after the end of a JPEG is passed over.
            (place / f"{number:06}.jpg").write_bytes(encoded.tobytes() + number.to_bytes(4, "little"))
    (tmp_path / "few").write_text("".join(f"{tmp_path}/pictures/000000/{number:06}.jpg\n" for number in range(FEW)))
    return tmp_path


def watched(command: list[str]) -> tuple[str, int]:
    """What a run prints, and the most that its processes held, each at its own worst moment."""
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    peaks: dict[int, int] = {}
    while True:
        try:
            printed, _ = run.communicate(timeout=LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            peaks |= _held(run.pid)
        else:
            assert run.returncode == 0
            return printed, sum(peaks.values())


def _held(pid: int) -> dict[int, int]:
    """Of a process and those that it started the most bytes so far."""
    running = (int(place.name) for place in Path("/proc").glob("[0-9]*"))
    pids = [one for one in running if one == pid or _parent(one) == pid]
    return {one: held for one in pids if (held := _most_held(one))}


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:  # it ended just now
        return 0


def _most_held(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:  # it ended just now
        return 0
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def test_memory_is_flat_from_a_thousand_pictures_to_a_hundred_thousand(ferserve_command, folder, tiny_archive):
    peaks = {}
    for name, source, pictures in (("few", f"@{folder}/few", FEW), ("many", folder / "pictures", MANY)):
        score = [
            ferserve_command,
            "score",
            source,
            "--out",
            folder / f"out-{name}",
            "--model",
            tiny_archive,
            "--threads",
            "2",
            "--json",
        ]
        summary, peaks[name] = watched([str(part) for part in score])
        assert f'"pictures": {pictures},' in summary
    sys.stdout.write(f"\n{peaks['few'] / 1e6:.0f} MB for {FEW} pictures, {peaks['many'] / 1e6:.0f} MB for {MANY}\n")
    assert peaks["many"] - peaks["few"] < MAX_GROWTH_BYTES
