#!/usr/bin/env bash
# UrbanSound8K's tables: ten folds, every variant, both backbones, from the downloaded data set to the report.
#
#   bash scripts/urbansound8k.sh --root DIR              every variant, extractors pretrained first
#   bash scripts/urbansound8k.sh --root DIR --dry-run    the plan: cells, updates, expected hours
#   bash scripts/urbansound8k.sh --root DIR --quick      a few updates: does it run?
#
# Where to get DIR: examples/urbansound8k/README.md. The same command goes on where it was stopped.
set -euo pipefail
started_in=$PWD
dataset=urbansound8k metrics=accuracy,macro_f1
cells=('urbansound8k=/fold{fold:02d}') preparation=()
prepare_data() { neupronet prepare urbansound8k --root "$downloaded" --out "$data" ${preparation[@]+"${preparation[@]}"}; }
source "$(dirname "${BASH_SOURCE[0]}")/reproduce.sh"
