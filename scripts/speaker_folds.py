"""Cut a metadata table into profile-disjoint folds.

    python scripts/speaker_folds.py manifest.csv --out DIR --folds 5        fold1.csv ... fold5.csv
    python scripts/speaker_folds.py manifest.csv --out DIR --train-profiles 6
    python scripts/speaker_folds.py manifest.csv --out DIR --cut development --folds 3
    python scripts/speaker_folds.py manifest.csv --out DIR --cut authors    authors.csv

Every profile is in the test split of one fold and in the validation split of the fold before. With `--train-profiles`
only so many of the others are trained on, those of a smaller number among those of a larger. `development` leaves the
table's own test profiles out, and its folds have validation and training profiles only: for choosing things without
looking at the test profiles. `authors` keeps the table's splits.
"""

import argparse
import csv
import random
from pathlib import Path


def deal(profiles: list[str], n_folds: int, seed: int) -> list[set[str]]:
    """Deal the profiles out in random order; sizes differ by 1 at most."""
    shuffled = sorted(profiles)
    random.Random(seed).shuffle(shuffled)
    return [set(shuffled[fold::n_folds]) for fold in range(n_folds)]


def folds_of(rows: list[dict[str, str]], n_folds: int, seed: int, development: bool) -> list[list[dict[str, str]]]:
    """The rows of each fold, with their new split."""
    if development:
        rows = [row for row in rows if row["split"] != "test"]
    hands = deal(list({row["profile"] for row in rows}), n_folds, seed)
    folds = []
    for fold, hand in enumerate(hands):
        roles = [("valid", hand)] if development else [("test", hand), ("valid", hands[(fold + 1) % n_folds])]
        role_of = {profile: role for role, held in roles for profile in held}
        folds.append([row | {"split": role_of.get(row["profile"], "train")} for row in rows])
    return folds


def with_few(rows: list[dict[str, str]], n_profiles: int, seed: int) -> list[dict[str, str]]:
    """The rows without those of all training profiles but so many."""
    trained = sorted({row["profile"] for row in rows if row["split"] == "train"})
    random.Random(seed).shuffle(trained)
    kept = set(trained[:n_profiles])
    return [row for row in rows if row["split"] != "train" or row["profile"] in kept]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--train-profiles", type=int, metavar="N", help="train on so many only (default: all)")
    parser.add_argument("--cut", choices=["folds", "development", "authors"], default="folds")
    arguments = parser.parse_args()
    with arguments.table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["path"] = str(arguments.table.parent.resolve() / row["path"])
        row["split"] = {"val": "valid"}.get(row["split"], row["split"])
    if arguments.cut == "authors":
        tables = {"authors": rows}
    else:
        cut = folds_of(rows, arguments.folds, arguments.seed, arguments.cut == "development")
        tables = {f"fold{number}": fold for number, fold in enumerate(cut, start=1)}
    if arguments.train_profiles is not None:
        if arguments.train_profiles < 1:
            parser.error(f"--train-profiles {arguments.train_profiles}: give 1 or more")
        tables = {name: with_few(table, arguments.train_profiles, arguments.seed) for name, table in tables.items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        with (arguments.out / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(table[0]))
            writer.writeheader()
            writer.writerows(table)


if __name__ == "__main__":
    main()
