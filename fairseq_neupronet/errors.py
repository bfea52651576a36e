"""One sentence for a user's mistake, instead of a traceback; and no remarks of libraries on how they are used."""

import contextlib
import logging
import os
import re
import sys
import warnings
from traceback import extract_tb

_WORKER_MARK = "Original Traceback (most recent call last):"
# A stranger's file name may hold what moves a terminal's cursor, turns the writing round, or cannot be printed.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# What torch says where another process of the training is gone: gloo in words, others by the kind of error.
_LOST_PEER_WORDS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting")
_LOST_PEER_KINDS = ("DistBackendError", "DistNetworkError", "DistStoreError")


class InputError(ValueError):
    """Something the user gave cannot be used.

    Args:
        sentence: names the file, the line and the cure, and stands alone.
    """

    def __init__(self, sentence: str):
        # DataLoader re-raises a worker's exception as type(error)(whole traceback); its last line is our sentence.
        if _WORKER_MARK in sentence:
            sentence = sentence.rstrip().rsplit("InputError: ", 1)[-1]
        super().__init__(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", " ".join(sentence.split("\n"))))


def sentence_of(error: BaseException) -> str:
    """The lines of a config library's error as one, without the name of its Python type."""
    lines = (line.strip() for line in str(error).splitlines())
    return " ".join(line.replace("full_key:", "at").strip() for line in lines if not line.startswith("object_type"))


def _is_users_mistake(kind: type[BaseException], error: BaseException) -> bool:
    # By name: this module must not import the libraries whose errors it words.
    return (
        issubclass(kind, InputError)
        or kind.__module__.startswith("omegaconf.")
        or (issubclass(kind, OSError) and str(error).startswith("Model file not found"))
    )


def _has_lost_peer(kind: type[BaseException], error: BaseException) -> bool:
    words = issubclass(kind, RuntimeError) and any(words in str(error) for words in _LOST_PEER_WORDS)
    return words or kind.__name__ in _LOST_PEER_KINDS


def _print_sentence(kind, error, traceback):
    # What torch.load raises on a damaged or foreign file depends on the file's bytes.
    frames = extract_tb(traceback)
    if any(frame.name == "load" and frame.filename.endswith("torch/serialization.py") for frame in frames):
        sentence = "the checkpoint is damaged, or holds more than tensors and plain containers; use another file"
    elif _has_lost_peer(kind, error):
        sentence = (
            "another process of this training has ended, or cannot be reached; start the same command in all of them "
            "again, and the training resumes from its last checkpoint"
        )
    elif _is_users_mistake(kind, error):
        sentence = sentence_of(error)
    else:
        sys.__excepthook__(kind, error, traceback)
        return
    print(f"neupronet: error: {sentence}", file=sys.stderr)


def show_sentences() -> None:
    """Let an uncaught mistake of the user's end the process with its sentence and exit code 1.

    Hydra prints a shortened traceback of its own unless told to raise the error; the same switch gives
    whole tracebacks for defects, which is what a bug report needs.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    sys.excepthook = _print_sentence


@contextlib.contextmanager
def quiet_libraries(level: int = logging.INFO):
    """Without Python's warnings, and without what fairseq, Hydra and others log up to a level.

    They recommend further packages and newer functions to whoever uses them, and log whatever they load.
    """
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
