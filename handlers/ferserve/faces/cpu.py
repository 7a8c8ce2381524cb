"""The CPU that this process runs on, as far as scores depend on it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """A CPU.

    Attributes:
        vnni: whether x86's 8-bit dot products are there, with which int8 weights of 8 bits cannot overflow; None where
            the system does not say, and on other architectures.
    """

    name: str
    vnni: bool | None


def read_cpu(path: Path = Path("/proc/cpuinfo")) -> Cpu:
    """The CPU as Linux describes it."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return Cpu(name="unknown", vnni=None)
    values = {key.strip(): value.strip() for key, colon, value in (line.partition(":") for line in lines) if colon}
    flags = values.get("flags", "").split()
    return Cpu(
        name=values.get("model name", "unknown"),
        vnni=bool({"avx512_vnni", "avx_vnni"} & set(flags)) if flags else None,
    )
