"""Kill real commands at random moments, start them again, and compare them with ones that nobody broke.

    python tests/endurance/torture.py                  20 kills of trainings
    python tests/endurance/torture.py --preparation    20 kills of ``neupronet prepare``, full disks and lost files among them
    python tests/endurance/torture.py --benchmark      20 kills of ``neupronet benchmark``, its trainings and evaluations
    python tests/endurance/torture.py -n 200 --seed 7

A kill counts where the command was still at work. The last line is ``N kills, N resumed identical``; exit code 1 if
fewer are.
"""

import argparse
import random
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
import torture_benchmark  # noqa: E402
import torture_preparation  # noqa: E402
import torture_training  # noqa: E402

SUBJECTS = {"training": torture_training, "preparation": torture_preparation, "benchmark": torture_benchmark}


def main(argv=None) -> int:
    """Torture, and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", type=int, default=20, metavar="N", help="kills (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments and kinds of kill (default: 1)")
    parser.add_argument("--jobs", type=int, default=2, help="commands beside each other (default: 2)")
    parser.add_argument("--keep", metavar="DIR", help="keep all files in this folder, which must be empty")
    which = parser.add_mutually_exclusive_group()
    for name in SUBJECTS:
        which.add_argument(f"--{name}", action="store_const", dest="subject", const=name)
    parser.set_defaults(subject="training")
    options = parser.parse_args(argv)
    if options.n < 1 or options.jobs < 1:
        parser.error("-n and --jobs are 1 or more")
    print(f"{options.n} kills of the {options.subject}, seed {options.seed}, {options.jobs} at a time", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.keep or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        subject = SUBJECTS[options.subject].Subject(folder, options.jobs)
        jobs = min(subject.jobs, options.n)
        shares = [options.n // jobs + (job < options.n % jobs) for job in range(jobs)]
        seeds = [f"{options.seed}:{job}" for job in range(jobs)]
        with ThreadPoolExecutor(jobs) as pool:
            counts = list(
                pool.map(lambda job: subject.torture(job, shares[job], random.Random(seeds[job])), range(jobs))
            )
    kills, identical = (sum(count) for count in zip(*counts, strict=True))
    print(f"{kills} kills, {identical} resumed identical")
    return int(identical != kills)


if __name__ == "__main__":
    sys.exit(main())
