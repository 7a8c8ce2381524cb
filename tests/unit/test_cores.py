import os
from pathlib import Path

import pytest

from ferserve.serving.cores import available_cores

ALLOWED = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000\n", ALLOWED),
        ("100000 100000\n", 1),
        ("10000 100000\n", 1),
        ("110000 100000\n", min(2, ALLOWED)),
        (f"{(ALLOWED + 5) * 100000} 100000\n", ALLOWED),
        ("nonsense", ALLOWED),
    ],
)
def test_a_quota_is_rounded_up_and_never_raises_what_the_scheduler_allows(tmp_path: Path, text: str, cores: int):
    file = tmp_path / "cpu.max"
    file.write_text(text)
    assert available_cores(file) == cores


def test_without_a_quota_the_scheduler_decides(tmp_path: Path):
    assert available_cores(tmp_path / "missing") == ALLOWED
