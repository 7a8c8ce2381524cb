"""Cores that are kept from halting while something is measured."""

import os
import select
import subprocess
import sys

import pytest

from ferserve.serving.benchmarks import spinning
from ferserve.serving.benchmarks.awake import cores_awake

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux only")
LONGEST_MS = 20_000


def has_ended(pid):
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(LONGEST_MS))
    finally:
        os.close(descriptor)


def test_every_core_has_one_who_computes_at_the_lowest_priority_until_the_end():
    with cores_awake() as awake:
        pids = list(awake._pids)
        assert len(pids) == len(os.sched_getaffinity(0))
        for _ in range(10**7):  # it is a moment before they have asked for it
            if all(os.sched_getscheduler(pid) == os.SCHED_IDLE for pid in pids):
                break
        assert {core for pid in pids for core in os.sched_getaffinity(pid)} == os.sched_getaffinity(0)
        assert awake.cpu_s() > 0
    assert all(has_ended(pid) for pid in pids)


def test_it_ends_with_whoever_started_it():
    core = min(os.sched_getaffinity(0))
    program = (
        "import os, subprocess, sys; "
        "print(subprocess.Popen([*sys.argv[1:], str(os.getpid())], stdout=subprocess.DEVNULL).pid)"
    )
    started = subprocess.run(
        [sys.executable, "-c", program, sys.executable, spinning.__file__, str(core)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert has_ended(int(started.stdout))  # which waits for it
