#!/usr/bin/env bash
# The Arabic digits' tables: the authors' split and five speaker-disjoint folds, these with few training speakers too, from
# the downloaded data to the report.
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
    for fold in 1 2 3 4 5; do
        mv "$out/tables/few/fold$fold.csv" "$out/tables/few$fold.csv"
    done
    for split in authors fold1 fold2 fold3 fold4 fold5 few1 few2 few3 few4 few5; do
        neupronet prepare table --metadata "$out/tables/$split.csv" --out "$data/$split" --recipe kaldi_fbank \
            --n-mels 64 ${preparation[@]+"${preparation[@]}"}
    done
}
source "$(dirname "${BASH_SOURCE[0]}")/reproduce.sh"
