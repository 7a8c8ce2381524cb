"""One arena of memory for the ONNX Runtime sessions of this process that ask for it.

Memory that each run takes from the system anew costs a page fault every 4 KiB, a third of the scorer's time in a
gateway (docs/adr/0092-page-faults.md). Memory that is kept makes the process larger: a run that takes much gives it
back.
"""

from functools import cache

import onnxruntime as ort


def use_shared_arena(options: ort.SessionOptions) -> None:
    """Let a session that will be started with `options` take its memory from the arena."""
    _register()
    options.add_session_config_entry("session.use_env_allocators", "1")
    # ONNX Runtime plans memory for each size of input anew and keeps every plan; pictures and batches have all sizes.
    options.enable_mem_pattern = False


def giving_back() -> ort.RunOptions:
    """Options of a run after which the arena gives all that is unused back to the system."""
    options = ort.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


@cache
def _register() -> None:
    """Make it grow by what is asked of it.

    ONNX Runtime's own doubles what it takes each time: two 1080p pictures side by side took 25 MB more, and no arena at
    all takes the system 2.7 times the CPU time (docs/adr/0072-350-mb.md).
    """
    arena = ort.OrtArenaCfg({"arena_extend_strategy": 1})  # kSameAsRequested
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, arena)
