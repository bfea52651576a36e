#!/usr/bin/env bash
# The Arabic digits' tables: the authors' split and five speaker-disjoint folds, from the downloaded data to the report.
#
#   bash scripts/arabic_digits.sh --root DIR [--dry-run] [--quick] [--jobs N] [--out DIR] [KEY=VALUE ...]
#
# Where to get DIR: examples/arabic-digits/README.md. The same command goes on where it was stopped.
set -euo pipefail
started_in=$PWD
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

downloaded="" out="" benchmark=() dry_run="" quick=""
while [ $# -gt 0 ]; do
    case "$1" in
        --root | --out | --jobs)
            [ $# -ge 2 ] || fail "$1 needs a value"
            case "$1" in
                --root) downloaded=$2 ;;
                --out) out=$2 ;;
                --jobs) benchmark+=(--jobs "$2") ;;
            esac
            shift 2
            ;;
        --quick) quick=yes; benchmark+=(--quick); shift ;;
        --dry-run) dry_run=yes; benchmark+=(--dry-run); shift ;;
        *=*) benchmark+=("$1"); shift ;;
        *) fail "unknown option $1; see the head of scripts/arabic_digits.sh" ;;
    esac
done
[ -n "$downloaded" ] || fail "--root is missing: where to get the data is in examples/arabic-digits/README.md"
absolute() { case "$1" in /*) echo "$1" ;; *) echo "$started_in/$1" ;; esac; }
downloaded=$(absolute "$downloaded")
[ -f "$downloaded/manifest.csv" ] || fail "$downloaded/manifest.csv: no such file; --root is the folder that holds it"
out=$(absolute "${out:-$root/outputs/arabic_digits${quick:+-quick}}")

bash scripts/setup.sh
PATH="$(cd "$venv" && pwd)/bin:$PATH"

say "features and manifests"
python scripts/speaker_folds.py "$downloaded/manifest.csv" --folds 5 --out "$out/tables"
python scripts/speaker_folds.py "$downloaded/manifest.csv" --cut authors --out "$out/tables"
for fold in authors fold1 fold2 fold3 fold4 fold5; do
    neupronet prepare table --metadata "$out/tables/$fold.csv" --out "$out/data/$fold" --recipe kaldi_fbank --n-mels 64
done
neupronet benchmark configs/benchmark/arabic_digits.yaml "datasets.authors.data=$out/data/authors" \
    "datasets.folds.data=$out/data/fold{fold}" --out "$out" ${benchmark[@]+"${benchmark[@]}"}
[ -z "$dry_run" ] || exit 0
neupronet report "$out/results.csv" --out "$out/report" --reference base
cat "$out/report/tables.md"
