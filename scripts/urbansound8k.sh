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
dataset=urbansound8k data_of_cell='/fold{fold:02d}' metrics=accuracy,macro_f1
preparation=()
source "$(dirname "${BASH_SOURCE[0]}")/reproduce.sh"
