"""What a run holds does not grow with the pictures that it scores."""

import subprocess
import sys

import cv2
import pytest

from ferserve.faces.decode import DecodeLimits, decode

pytestmark = [pytest.mark.e2e, pytest.mark.long]
FEW, MANY = 1_000, 100_000
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


# Of a process that ended, the system tells its parent the most it held; so each run has a parent of its own.
WATCH = (
    "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], capture_output=True, text=True); "
    "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, done.stdout)"
)


def test_memory_is_flat_from_a_thousand_pictures_to_a_hundred_thousand(ferserve_command, folder, tiny_archive):
    peaks = {}
    for name, source, pictures in (("few", f"@{folder}/few", FEW), ("many", folder / "pictures", MANY)):
        score = [ferserve_command, "score", source, "--out", folder / f"out-{name}", "--model", tiny_archive, "--json"]
        launched = [sys.executable, "-c", WATCH, *map(str, score)]
        told = subprocess.run(launched, capture_output=True, text=True, check=True).stdout
        code, peak, summary = told.split(maxsplit=2)
        assert code == "0"
        assert f'"pictures": {pictures},' in summary
        peaks[name] = int(peak)
    sys.stdout.write(f"\n{peaks['few'] / 1e6:.0f} MB for {FEW} pictures, {peaks['many'] / 1e6:.0f} MB for {MANY}\n")
    assert peaks["many"] - peaks["few"] < MAX_GROWTH_BYTES
