"""What decoding holds at its peak, measured where nothing else runs."""

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


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
def test_a_picture_is_held_once_by_pillow_and_once_as_pixels():
    peak_mib = float(subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True).stdout)
    assert 4096 * 4096 * (4 + 3) / 2**20 < peak_mib < 4096 * 4096 * (4 + 3) / 2**20 + 20
