"""Many viewers of live streams at once, over real WebSockets."""

import asyncio
import json
import subprocess

import pytest
from tests.browser.scenes import jpeg, scene
from websockets.asyncio.client import connect

from ferserve.serving.benchmarks.viewers import jain_index

pytestmark = [pytest.mark.e2e, pytest.mark.long]
VIEWERS, FRAMES = 10, 40


async def test_ten_viewers_are_served_fairly_and_every_frame_is_answered_or_counted(served):
    pictures = [jpeg(scene(second / 4)) for second in range(8)]
    address = (
        served.rest.replace("http:", "ws:") + "/v1/stream?mode=live&tracks=true&detection_size=160&timeout_ms=600000"
    )
    went = await _all_viewers(address, pictures)
    answered = [count for count, _ in went]
    assert jain_index(answered) > 0.95
    assert min(answered) >= 0.5 * sum(answered) / len(answered)
    assert [count + dropped for count, dropped in went] == [FRAMES] * VIEWERS


async def _all_viewers(address, pictures):
    """Each viewer's answered and dropped frames; all send at the same pace until each has sent its own."""
    started = asyncio.Barrier(VIEWERS)

    async def view():
        answered = dropped = 0
        async with connect(address, open_timeout=60, ping_timeout=None) as socket_:
            await started.wait()

            async def send():
                for number in range(FRAMES):
                    await socket_.send(number.to_bytes(8, "big") + pictures[number % len(pictures)])
                    await asyncio.sleep(1 / 8)

            sending = asyncio.create_task(send())
            while True:
                reply = json.loads(await socket_.recv())
                assert "analysis" in reply, reply
                answered += 1
                dropped += reply["dropped_frames"]
                if reply["id"] == str(FRAMES - 1):
                    await sending
                    return answered, dropped

    return await asyncio.gather(*(view() for _ in range(VIEWERS)))


def test_bench_viewers_counts_what_each_one_sees(ferserve_command, tmp_path):
    picture = tmp_path / "face.jpg"
    picture.write_bytes(jpeg(scene(0.0, faces=1)))
    options = ["--viewers", "2", "--faces", "1", "--rate", "5", "--seconds", "6", "--json"]
    command = [ferserve_command, "bench", "viewers", str(picture), *options]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=180)
    report = json.loads(ended.stdout)
    assert report["viewers"] == len(report["frames_s"]) == 2
    assert 0 < report["frames_s"][0] <= report["frames_s"][1] <= 6
    assert 0.5 <= report["jain"] <= 1
    assert report["failed"] == 0
    assert 0 < report["median_ms"] <= report["p99_ms"]
