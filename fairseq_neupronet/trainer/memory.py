"""Keep freed memory in the process: a training step on the CPU frees and asks for the same gigabytes every time.

By default glibc returns every large block to the kernel, and the next one costs a page fault every 4 KiB: half of the
time of a step at batch 128. What is kept lies in pieces where clips differ in length, and grows for hours as larger
ones find no place: an epoch begins without it, where a minute has passed.
"""

import ctypes
import os
import sys
import time

SWITCH = "NEUPRONET_KEEP_MEMORY"
# Whoever has set one of these has chosen an allocator, or its settings, already.
_CHOSEN = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_NEVER = -1


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed, from now on and in this process; elsewhere do nothing.

    The environment decides: ``NEUPRONET_KEEP_MEMORY=0`` switches it off, and so does any setting of malloc's own.

    Returns:
        Whether it was done.
    """
    if not _is_glibc_left_to_us():
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, _NEVER))


class FreedMemory:
    """What :func:`keep_freed_memory` kept. To return a gigabyte and fault it in again costs half a second.

    Args:
        seconds: to be waited between two returns.
    """

    def __init__(self, seconds: float = 60.0):
        self._seconds, self._next = seconds, time.monotonic() + seconds

    def return_at_times(self) -> bool:
        """Give it back to the kernel, if it is time; whether that was done."""
        if not _is_glibc_left_to_us() or time.monotonic() < self._next:
            return False
        ctypes.CDLL(None).malloc_trim(0)
        self._next = time.monotonic() + self._seconds
        return True


def _is_glibc_left_to_us() -> bool:
    if not sys.platform.startswith("linux") or os.environ.get(SWITCH) == "0":
        return False
    return hasattr(ctypes.CDLL(None), "gnu_get_libc_version") and not any(os.environ.get(name) for name in _CHOSEN)
