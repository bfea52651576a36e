"""Large arrays travel to spawned workers once, in shared memory; forked workers have them anyway."""

import pickle
from multiprocessing.context import get_spawning_popen

import numpy as np
import torch

_LEAST_BYTES = 1 << 16


class SpawnShared:
    """A base for what workers are given: its large arrays are not copied into processes that are being started.

    All of them see one copy, wherever in the object an array stands; nobody may change the arrays afterwards.
    """

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_shared_copies"}

    def __reduce_ex__(self, protocol):
        if get_spawning_popen() is None:
            return super().__reduce_ex__(protocol)
        # An array stands beside its copy, so that its address is not given to another one.
        copies = self.__dict__.setdefault("_shared_copies", {})
        tensors = []

        def stays_in_the_pickle(buffer: pickle.PickleBuffer) -> bool:
            array = np.frombuffer(buffer.raw(), np.uint8)
            if array.nbytes < _LEAST_BYTES:
                return True
            place = array.ctypes.data, array.nbytes
            if place not in copies:
                copies[place] = array, torch.from_numpy(array.copy()).share_memory_()
            tensors.append(copies[place][1])
            return False

        pickled = pickle.dumps(self.__getstate__(), protocol=5, buffer_callback=stays_in_the_pickle)
        return _rebuild, (type(self), pickled, tensors)


def _rebuild(kind: type, pickled: bytes, tensors: list[torch.Tensor]):
    instance = kind.__new__(kind)
    buffers = [tensor.numpy() for tensor in tensors]
    # What the parent process has pickled a moment ago; it comes from no file.
    instance.__dict__.update(pickle.loads(pickled, buffers=buffers))  # nosec B301
    return instance
