#!/usr/bin/env bash
# ICBHI 2017's tables: every variant, from the downloaded data set to the report.
#
#   bash scripts/icbhi.sh --root DIR              every variant, extractors pretrained first
#   bash scripts/icbhi.sh --root DIR --dry-run    the plan: cells, updates, expected hours
#   bash scripts/icbhi.sh --root DIR --quick      a few updates: does it run?
#
# Where to get DIR: examples/icbhi/README.md. The same command goes on where it was stopped.
set -euo pipefail
started_in=$PWD
dataset=icbhi metrics=icbhi_score,sensitivity,specificity,accuracy
cells=(icbhi=) preparation=()
prepare_data() { neupronet prepare icbhi --root "$downloaded" --out "$data" ${preparation[@]+"${preparation[@]}"}; }
source "$(dirname "${BASH_SOURCE[0]}")/reproduce.sh"
