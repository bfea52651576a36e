"""Kill a real training, or preparation, at random moments, start it again, and compare it with one that nobody broke.

    python scripts/torture.py                  20 kills of trainings
    python scripts/torture.py --preparation    20 kills of ``neupronet prepare``
    python scripts/torture.py -n 200 --seed 7

SIGKILL and SIGTERM take turns, now and then to the loader's processes as well; after some kills a checkpoint, or a
file of features, is torn or deleted. The last line is ``N kills, N resumed identical``; exit code 1 if fewer are.
"""

import argparse
import random
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import torture_preparation  # noqa: E402
import torture_training  # noqa: E402


def main(argv=None) -> int:
    """Torture, and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=20, metavar="N", help="kills (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and kinds of kill (default: 1)")
    parser.add_argument("--jobs", type=int, default=2, help="processes beside each other (default: 2)")
    parser.add_argument("--preparation", action="store_true", help="of neupronet prepare instead of a training")
    parser.add_argument("--keep", metavar="DIR", help="keep all files in this folder")
    options = parser.parse_args(argv)
    if options.n < 1 or options.jobs < 1:
        parser.error("-n and --jobs are 1 or more")
    torture = torture_preparation if options.preparation else torture_training
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.keep or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        subject = torture.Subject(folder, options.jobs)
        shares = [options.n // options.jobs + (job < options.n % options.jobs) for job in range(options.jobs)]
        seeds = [f"{options.seed}:{job}" for job in range(options.jobs)]
        with ThreadPoolExecutor(options.jobs) as pool:
            counts = list(pool.map(lambda job: subject.torture(job, shares[job], random.Random(seeds[job])),
                                   range(options.jobs)))  # fmt: skip
    kills, identical = (sum(count) for count in zip(*counts, strict=True))
    print(f"{kills} kills, {identical} resumed identical")
    return int(identical != kills)


if __name__ == "__main__":
    sys.exit(main())
