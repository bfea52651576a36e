"""Coverage-guided fuzzing (atheris) of what reads strangers' files.

    python tests/endurance/fuzz.py TARGET --seconds N [--seed N] [--corpus DIR]

A target reads the input correctly or refuses it by an InputError; anything else is a finding, whose input is left as
``crash-…`` in the working directory. The last line is ``TARGET: N executions, no findings``. Needs ``pip install
atheris``, which exists for Linux.
"""

import argparse
import os
import shutil
import struct
import sys
import tempfile
import time
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fairseq_neupronet"]):
    from fairseq_neupronet import arrays
    from fairseq_neupronet.backbones.wav2vec2.convolutions import parse_conv_spec
    from fairseq_neupronet.data import clip_files, manifest, string_column  # noqa: F401
    from fairseq_neupronet.errors import InputError

_ROWS = b"features\na.npy\t8\t20\tp\nb.npy\t8\t31\tq\nclips.zip:60:800\t8\t20\t\n"
_WAV = (
    b"RIFF"
    + struct.pack("<I", 100)
    + b"WAVEfmt "
    + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    + b"data"
    + struct.pack("<I", 64)
    + bytes(64)
)


class Fuzzer:
    """Files of the target under test, in a folder that goes with the process.

    Args:
        folder: where they are written.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def _write(self, name: str, data: bytes) -> Path:
        (self.folder / name).write_bytes(data)
        return self.folder / name

    def manifest(self, data: bytes) -> None:
        found = manifest.read_manifest(self._write("train.tsv", data), profiling=len(data) % 2 == 1)
        assert len(list(found.clips)) == len(found.frames) > 0

    def dictionary(self, data: bytes) -> None:
        classes = manifest.read_classes(self._write("dict.label.txt", data))
        assert len(set(classes)) == len(classes) > 0

    def convolutions(self, data: bytes) -> None:
        layers = parse_conv_spec(data.decode("utf-8", "replace"))
        assert all(len(layer) == 4 and min(layer) > 0 for layer in layers)

    def npy(self, data: bytes) -> None:
        try:
            header = arrays.parse_header(data)
        except ValueError:
            return
        assert header.start <= len(data)

    def audio(self, data: bytes) -> None:
        from fairseq_neupronet.audio.decode import load_audio

        waveform = load_audio(self._write("clip.wav", data), 16000)
        assert waveform.isfinite().all() and len(waveform)


SEEDS = {
    "manifest": [_ROWS, _ROWS.replace(b"\n", b"\r\n"), b"x\n101_mel_2048_128.npy\t8\t20\n"],
    "dictionary": [b"cough 10\nlaugh 3\n", b"a b 1\r\n"],
    "convolutions": [b"[(512, 5, 1, 2)] + [(256, 3, 1)] * 2"],
    "npy": [b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f4', 'fortran_order': False, 'shape': (8, 20), }" + b" " * 11],
    "audio": [_WAV, b"fLaC" + bytes(60), b"OggS" + bytes(60)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=SEEDS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="folder of inputs to go on from, and to add to")
    arguments = parser.parse_args()
    if arguments.target == "audio":
        with atheris.instrument_imports(include=["fairseq_neupronet"]):
            import fairseq_neupronet.audio.decode  # noqa: F401 (brings in torch)
    warnings.simplefilter("ignore", SyntaxWarning)  # Python's remarks on what it is given
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        corpus = arguments.corpus or folder / "corpus"
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(SEEDS[arguments.target]):
            (corpus / f"seed-{number}").write_bytes(seed)
        read = getattr(Fuzzer(folder), arguments.target)
        executions, deadline = 0, time.monotonic() + arguments.seconds

        def one_input(data: bytes) -> None:
            nonlocal executions
            if time.monotonic() > deadline:
                # The fuzzer leaves the process without Python's own end.
                print(f"{arguments.target}: {executions} executions, no findings", flush=True)
                shutil.rmtree(folder)
                os._exit(0)
            executions += 1
            try:
                read(data)
            except InputError as error:
                assert str(error) and "\n" not in str(error)

        options = [f"-seed={arguments.seed}", "-timeout=20", "-rss_limit_mb=4096", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
