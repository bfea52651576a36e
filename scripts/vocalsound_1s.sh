#!/usr/bin/env bash
# VocalSound-1s' tables, a third of the training speakers: from the downloaded data set to the report.
#
#   bash scripts/vocalsound_1s.sh --root DIR              every variant, extractors pretrained first
#   bash scripts/vocalsound_1s.sh --root DIR --dry-run    the plan: cells, updates, expected hours
#   bash scripts/vocalsound_1s.sh --root DIR --quick      a few updates: does it run?
#
# What DIR is: examples/vocalsound-1s/README.md. The same command goes on where it was stopped.
set -euo pipefail
started_in=$PWD
dataset=vocalsound_1s metrics=accuracy,macro_f1
cells=(vocalsound_1s=) preparation=()
prepare_data() {
    neupronet prepare vocalsound --root "$downloaded" --out "$data" --recipe kaldi_fbank --n-mels 64 \
        --train-speakers-every 3 ${preparation[@]+"${preparation[@]}"}
}
source "$(dirname "${BASH_SOURCE[0]}")/reproduce.sh"
