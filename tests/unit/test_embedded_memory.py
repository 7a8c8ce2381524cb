"""What a worker will ever need for its batches it has when it has started."""

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, random, re
from pathlib import Path
import numpy as np
from ferserve.faces.index import open_archive
from ferserve.serving.allocator import return_large_buffers
from ferserve.serving.workers.embedded import EmbeddedConfig, EmbeddedWorker

def own_kib():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

async def main():
    return_large_buffers()
    worker = await EmbeddedWorker.start(open_archive("default"), EmbeddedConfig(threads=2))
    shape, rng, before = worker.describe().crop_shape, random.Random(1), own_kib()
    async def score(faces):
        await worker.infer(np.zeros((faces, *shape), dtype=np.uint8), timeout_s=60)
    for _ in range(40):
        await asyncio.gather(*(score(rng.randint(1, 20)) for _ in range(4)))
    print(own_kib() - before)
    await worker.close()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_batches_of_any_size_take_no_more_than_the_start_did():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 8 * 1024  # 20 and more where sizes grow with the load
