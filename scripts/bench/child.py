"""One side of a comparison in its own process: prepares, then does a run each time that it is told to.

``python -m bench.child MODULE COMPARISON SIDE OPTIONS``; MODULE has a function ``catalogue(options)``. The child writes
``{"ready": true}``, and for each line ``go`` that it reads the figures and the peak resident memory of a run. It ends
with its standard input, so that it cannot outlive the benchmark by more than a run.
"""

import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from bench.comparison import Comparison, Options
from bench.memory import peak_mib
from fairseq_neupronet.errors import InputError


def encode_options(options: Options) -> str:
    return json.dumps(
        {name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()}
    )


def decode_options(text: str) -> Options:
    fields = json.loads(text)
    folders = {name: Path(fields[name]) for name in ("scratch", "vocalsound", "audio") if fields[name]}
    return Options(**fields | folders)


def load_catalogue(module: str, options: Options) -> list[Comparison]:
    """The comparisons of a module."""
    return importlib.import_module(module).catalogue(options)


def main(module: str, name: str, side: str, options: str) -> None:
    # Whatever the libraries print must not reach the pipe of replies.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def reply(**message) -> None:
        print(json.dumps(message), file=replies, flush=True)

    try:
        given = decode_options(options)
        comparison = next(each for each in load_catalogue(module, given) if each.name == name)
        run = getattr(comparison, side).prepare()
        reply(ready=True)
        for _ in sys.stdin:
            figures = run()
            reply(figures=figures, peak_mib=figures.get("peak_mib") or peak_mib(given.device))
    except InputError as error:
        reply(refused=str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
