"""What measured: figures mean little without it."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version

import torch

from ferserve.faces.cpu import Cpu, read_cpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A CPU and the libraries whose versions move figures.

    Attributes:
        cores: that this process may use.
        accelerator: the GPU that did the work, by its maker's name; empty where none did.
    """

    cpu: Cpu
    cores: int
    python: str
    torch: str
    onnxruntime: str
    accelerator: str = ""


def this_machine(device: torch.device | None = None) -> Machine:
    """Where this process runs.

    Args:
        device: that torch computed on; the CPU unless told otherwise.
    """
    return Machine(
        cpu=read_cpu(),
        cores=len(os.sched_getaffinity(0)),
        python=platform.python_version(),
        torch=version("torch"),
        onnxruntime=version("onnxruntime"),
        accelerator=torch.cuda.get_device_name(device) if device is not None and device.type == "cuda" else "",
    )
