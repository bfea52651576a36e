"""Freed memory stays in the process until an epoch begins, unless the environment says otherwise."""

import os
import subprocess
import sys

import pytest

from fairseq_neupronet.trainer import memory as allocator

# Page faults of the second of two equal allocations, after the first was freed.
PROGRAM = """
import resource, numpy as np
from fairseq_neupronet.trainer.memory import keep_freed_memory
done = keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**23, dtype=np.float64)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(done, faults())
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")


def printed_by(program: str, environment: dict[str, str]) -> list[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC", "NEUPRONET_KEEP"))}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True).stdout.split()


def second_allocation(**environment) -> tuple[bool, int]:
    done, faults = printed_by(PROGRAM, environment)
    return done == "True", int(faults)


def test_memory_is_used_again_without_page_faults():
    done, faults = second_allocation()
    assert done and faults < 100


@pytest.mark.parametrize("switch", [{"NEUPRONET_KEEP_MEMORY": "0"}, {"MALLOC_TRIM_THRESHOLD_": "131072"}])
def test_the_environment_switches_it_off(switch):
    done, faults = second_allocation(**switch)
    assert not done and faults > 30  # huge pages may make few of many


# Resident MiB more than at first: with 256 MiB of arrays, of which the second half is then freed but for its last, and
# after that was returned.
RETURNING = """
import numpy as np
from fairseq_neupronet.trainer.memory import FreedMemory, keep_freed_memory
def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024
keep_freed_memory()
begin = resident()
arrays = [np.ones(2**17) for _ in range(256)]
del arrays[128:-1]
freed = resident()
FreedMemory(seconds=0.0).return_at_times()
print(freed - begin, resident() - begin)
"""


def freed_and_returned(**environment) -> tuple[float, float]:
    return tuple(float(number) for number in printed_by(RETURNING, environment))


def test_what_is_freed_between_blocks_in_use_is_returned():
    freed, returned = freed_and_returned()
    assert freed > 240 and 120 < returned < 150


def test_nothing_is_returned_where_the_environment_chose_the_allocator():
    freed, returned = freed_and_returned(MALLOC_TRIM_THRESHOLD_="1000000000", MALLOC_MMAP_THRESHOLD_="100000000")
    assert freed > 240 and returned > 240


def test_it_is_returned_at_times(monkeypatch):
    for name in (*allocator._CHOSEN, allocator.SWITCH):
        monkeypatch.delenv(name, raising=False)
    now = [1000.0]
    monkeypatch.setattr(allocator.time, "monotonic", lambda: now[0])
    freed, done = allocator.FreedMemory(seconds=60.0), []
    for now[0] in (1059.9, 1060.0, 1061.0, 1119.0, 1120.0, 1500.0, 1501.0):
        done.append(freed.return_at_times())
    assert done == [False, True, False, False, True, True, False]
