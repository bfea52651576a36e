"""fairseq reads batches ahead in a daemon thread; a process must not end while that thread frees its last tensors.

Freeing a tensor gives the interpreter's lock away. A thread that wants it back while Python shuts down is unwound
through C++, which aborts the process: ``terminate called without an active exception``, after the work is done.
"""

import atexit
import threading
import time

from fairseq.data.iterators import BackgroundConsumer

_PATIENCE = 10.0  # seconds for a thread that neither ends nor fills its queue


def wait_for_loader_threads(patience: float = _PATIENCE) -> None:
    """Wait until every reading thread has ended, or waits before a full queue, for ``patience`` s at most."""
    deadline = time.monotonic() + patience
    for thread in threading.enumerate():
        if isinstance(thread, BackgroundConsumer):
            while thread.is_alive() and not thread._queue.full() and time.monotonic() < deadline:
                thread.join(0.01)


def finish_loaders_at_exit() -> None:
    """Have the process wait for fairseq's reading threads before it ends."""
    atexit.register(wait_for_loader_threads)
