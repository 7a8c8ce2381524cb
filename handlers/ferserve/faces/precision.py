"""Which of an archive's graphs runs: float32, which every CPU computes alike, or int8 where the CPU does it rightly.

x86 without VNNI adds two products of 8 bits in 16, which can overflow: the int8 graph gives other scores there.
"""

from typing import Final, Literal

from ferserve.faces.archive import INT8, Archive
from ferserve.faces.cpu import Cpu
from ferserve.faces.errors import ArchiveError

Precision = Literal["fp32", "fp16", "int8"]
"""What scores are computed in: fp16 on a GPU under TorchServe only, the others by an archive's ONNX graphs."""
PrecisionChoice = Literal["auto", "fp32", "fp16", "int8"]
"""What may be asked for; `auto` leaves it to `resolve_precision`."""
PRECISION_CHOICES: Final[tuple[PrecisionChoice, ...]] = ("auto", "fp32", "fp16", "int8")


def resolve_precision(choice: PrecisionChoice, archive: Archive, cpu: Cpu, *, on_cpu: bool = True) -> Precision:
    """The precision that runs.

    `auto` takes int8 where the archive has it and the CPU is known to have VNNI, otherwise fp32.

    Args:
        on_cpu: whether the CPU computes; on an accelerator `auto` takes fp32.
    Raises:
        ArchiveError: int8 was asked for, and the archive has none or the CPU is an x86 without VNNI; or fp16, in which
            the graphs here do not compute.
    """
    if choice == "fp16":
        raise ArchiveError(
            f"{archive.path}: precision fp16: expected workers on TorchServe with a GPU, which alone compute in it; "
            "take fp32 or auto"
        )
    if choice == "auto":
        return "int8" if archive.has_int8 and cpu.vnni and on_cpu else "fp32"
    if choice == "int8":
        if not archive.has_int8:
            members = ", ".join(sorted(archive.manifest.members))
            raise ArchiveError(f"{archive.path}: precision int8: expected a member {INT8}, has {members}")
        if cpu.vnni is False:
            raise ArchiveError(
                f"{archive.path}: precision int8: expected a CPU with VNNI, got {cpu.name} without it: 8-bit sums "
                "overflow there; take fp32 or auto"
            )
    return choice
