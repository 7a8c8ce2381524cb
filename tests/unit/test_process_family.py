"""What a process and those that it started take together, measured on real ones."""

import os
import signal
import subprocess
import sys
import time

import pytest

from ferserve.serving.process_family import PeakMemory, cpu_s, family_pids, memory_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MIB = 2**20
PARENT = """
import os, sys, time
shared = bytearray(b"x" * (64 << 20))
for own_mib in (0, 32):
    if os.fork() == 0:
        own = bytearray(b"y" * (own_mib << 20))
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        print("ready", flush=True)
        sys.stdin.read()
        os._exit(0)
sys.stdin.read()
"""


@pytest.fixture
def parent():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for _ in range(2):
            assert process.stdout.readline() == b"ready\n"
        yield process
        process.stdin.close()


def test_children_are_found(parent):
    pids = family_pids(parent.pid)
    assert pids[0] == parent.pid
    assert len(pids) == 3


def test_memory_that_is_shared_counts_once(parent):
    alone = memory_bytes(os.getpid())
    assert alone > 0
    assert 96 * MIB < memory_bytes(parent.pid) < 96 * MIB + 40 * MIB


def test_cpu_time_of_children_counts(parent):
    assert cpu_s(parent.pid) >= 0.6


def test_the_most_is_remembered(parent):
    with PeakMemory(parent.pid) as memory:
        at_first = memory.most_bytes
        for child in family_pids(parent.pid)[1:]:
            os.kill(child, signal.SIGKILL)
        while memory_bytes(parent.pid) > at_first - 32 * MIB:
            time.sleep(0.001)
        assert memory.most_bytes >= at_first


def test_what_has_ended_takes_nothing():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert (family_pids(process.pid), memory_bytes(process.pid), cpu_s(process.pid)) == ([process.pid], 0, 0.0)
