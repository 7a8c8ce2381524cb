"""What decoding holds at its peak, measured where nothing else runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import struct, sys, zlib
from pathlib import Path
import numpy as np
from ferserve.faces.decode import DecodeLimits, decode

def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

side = 4096
rows = zlib.compress((b"\\0" + bytes(range(256)) * (side * 3 // 256)) * side, 1)
head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
png = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
del rows
Path("/proc/self/clear_refs").write_text("5")  # the peak so far does not count

def mib(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024

before = mib("VmRSS")
pixels = decode(png, DecodeLimits()).pixels
assert (pixels[7, 85:90].ravel() == np.arange(255, 270) % 256).all()
print(mib("VmHWM") - before)
"""


REDUCED = """
import io, sys
from pathlib import Path
import numpy as np
from PIL import Image
from ferserve.faces.decode import DecodeLimits, decode
from ferserve.faces.decode_memory import MemoryNeededError

kind, mode, options = sys.argv[1], sys.argv[2], eval(sys.argv[3])
steps = np.add.outer(np.arange(1800) // 16, np.arange(2400) // 16).astype(np.uint8)
encoded = io.BytesIO()
Image.fromarray(np.dstack([steps, steps // 2, 255 - steps])).convert(mode).save(encoded, kind, **options)
data = encoded.getvalue()
limits = DecodeLimits(max_image_bytes=2**30)
decode(data, limits, min_side_px=600)  # what is loaded once does not count

def mib(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024

def granted():
    try:
        decode(data, limits, min_side_px=600, granted_bytes=0)
    except MemoryNeededError as needed:
        return needed.needed_bytes / 2**20

needed = granted()
Path("/proc/self/clear_refs").write_text("5")
before = mib("VmRSS")
decode(data, limits, min_side_px=600)
print(mib("VmHWM") - before, needed)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("PNG", "P", {}),
        ("WEBP", "RGB", {"method": 0}),
        ("TIFF", "RGB", {"compression": "tiff_lzw", "strip_size": 2**30}),
        ("TIFF", "RGB", {"tiffinfo": {274: 6}}),
        ("GIF", "P", {}),
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
        ("JPEG", "CMYK", {"progressive": True}),
    ],
    ids=str,
)
def test_decoding_takes_no_more_than_was_computed_from_the_head(kind, mode, options):
    command = [sys.executable, "-c", REDUCED, kind, mode, repr(options)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}  # or what was freed before would be used again
    done = subprocess.run(command, check=True, capture_output=True, env=environment)
    peak_mib, needed_mib = map(float, done.stdout.split())
    assert peak_mib <= needed_mib < peak_mib + 22, "what is not known from a head may double a TIFF"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
def test_a_picture_is_held_once_by_pillow_and_once_as_pixels():
    peak_mib = float(subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True).stdout)
    assert 4096 * 4096 * (4 + 3) / 2**20 < peak_mib < 4096 * 4096 * (4 + 3) / 2**20 + 20
