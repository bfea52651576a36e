"""A process ends only when fairseq's reading thread has freed what it held."""

import queue
import subprocess
import sys

from fairseq.data.iterators import BackgroundConsumer

from fairseq_neupronet.trainer.processes import wait_for_loader_threads

PROGRAM = """
import time
from fairseq.data.iterators import BufferedIterator
import fairseq_neupronet.tasks

class Batch:
    def __del__(self, sleep=time.sleep):
        sleep(0.3)
        print("freed", flush=True)

class Source:
    def __len__(self):
        return 1

    def __iter__(self):
        try:
            yield Batch()
        finally:
            time.sleep(0.1)  # the reading thread is the last that holds the batch

iterator = BufferedIterator(10, Source())
next(iterator)
assert next(iterator, None) is None
print("done", flush=True)
"""


def test_a_process_ends_after_the_last_batch_is_freed():
    finished = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert sorted(finished.stdout.split()) == ["done", "freed"]


def test_a_thread_before_a_full_queue_is_not_waited_for():
    consumer = BackgroundConsumer(queue.Queue(1), iter([1, 2, 3]), None, None)
    consumer.daemon = True
    consumer.start()
    wait_for_loader_threads(patience=600.0)
    assert consumer.is_alive()
    while consumer.is_alive():
        consumer._queue.get()
        consumer.join(0.01)
