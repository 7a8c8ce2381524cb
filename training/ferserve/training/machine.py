"""What measured: figures mean little without it."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """What measured.

    Attributes:
        vnni: whether x86's 8-bit dot products are there, with which int8 weights of 8 bits cannot overflow; None where
            the system does not say.
    """

    name: str
    vnni: bool | None


def read_cpu(path: Path = Path("/proc/cpuinfo")) -> Cpu:
    """The CPU as Linux describes it."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return Cpu(name="unknown", vnni=None)
    values = {key.strip(): value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon}
    flags = values.get("flags", "").split()
    return Cpu(
        name=values.get("model name", "unknown"),
        vnni=bool({"avx512_vnni", "avx_vnni"} & set(flags)) if flags else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A CPU and the libraries whose versions move figures.

    Attributes:
        cores: that this process may use.
    """

    cpu: Cpu
    cores: int
    python: str
    torch: str
    onnxruntime: str


def this_machine() -> Machine:
    """Where this process runs."""
    return Machine(
        cpu=read_cpu(),
        cores=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        torch=version("torch"),
        onnxruntime=version("onnxruntime"),
    )
