"""Large CPU buffers in huge pages: XLA on CPU allocates its buffers anew in every step, and 4 KB pages make that slow."""

import os
import sys
from pathlib import Path

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# hugetlb=1: glibc asks for 2 MB pages; a fixed trim threshold keeps small freed blocks, and large ones in mappings of their own
_TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=1099511627776"


def restart_with_huge_pages() -> None:
    """Starts this very command again with GLIBC_TUNABLES set; call it first thing, before threads and before JAX.

    glibc (2.35 or newer) reads the variable only when a process starts. The process keeps its id. Nothing happens where
    the variable is set already, off Linux, or where the kernel has no transparent huge pages.

    Measured on 2 cores of a busy machine: a training step of MobileNetV2 (batch 8, 224 pixels) took 0.46 s instead of 1.87 s.
    """
    if sys.platform != "linux" or "GLIBC_TUNABLES" in os.environ or not sys.orig_argv:
        return
    try:
        if "[never]" in _SETTING.read_text():
            return
    except OSError:
        return
    os.execve(sys.executable, sys.orig_argv, os.environ | {"GLIBC_TUNABLES": _TUNABLES})
