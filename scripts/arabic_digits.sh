#!/usr/bin/env bash
# The Arabic digits' tables, from the downloaded data to the report: the authors' split and five speaker-disjoint folds,
# these with few training speakers too.
#
#   bash scripts/arabic_digits.sh --root DIR              every variant
#   bash scripts/arabic_digits.sh --root DIR --dry-run    the plan: cells, updates, expected hours
#   bash scripts/arabic_digits.sh --root DIR --quick      a few updates: does it run?
#
# Where to get DIR: examples/arabic-digits/README.md. The same command goes on where it was stopped.
set -euo pipefail
started_in=$PWD
dataset=arabic_digits metrics=accuracy,macro_f1
cells=(authors=/authors 'folds=/fold{fold}' 'few_speakers=/few{fold}') preparation=()
prepare_data() {
    python scripts/speaker_folds.py "$downloaded/manifest.csv" --folds 5 --out "$out/tables"
    python scripts/speaker_folds.py "$downloaded/manifest.csv" --cut authors --out "$out/tables"
    python scripts/speaker_folds.py "$downloaded/manifest.csv" --folds 5 --train-profiles 6 --out "$out/tables/few"
    prepare_table authors authors
    for fold in 1 2 3 4 5; do
        prepare_table "fold$fold" "fold$fold"
        prepare_table "few/fold$fold" "few$fold"
    done
}
prepare_table() {
    neupronet prepare table --metadata "$out/tables/$1.csv" --out "$data/$2" --recipe kaldi_fbank --n-mels 64 \
        ${preparation[@]+"${preparation[@]}"}
}
source "$(dirname "${BASH_SOURCE[0]}")/reproduce.sh"
