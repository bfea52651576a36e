#!/usr/bin/env bash
# VocalSound's tables: every variant, both backbones, from the downloaded data set to the report.
#
#   bash scripts/vocalsound.sh --root DIR              every variant, extractors pretrained first
#   bash scripts/vocalsound.sh --root DIR --dry-run    the plan: cells, updates, expected hours
#   bash scripts/vocalsound.sh --root DIR --quick      a few updates: does it run?
#
# Where to get DIR: examples/vocalsound/README.md. The same command goes on where it was stopped.
set -euo pipefail
started_in=$PWD
dataset=vocalsound metrics=accuracy,macro_f1
cells=(vocalsound=) preparation=()
prepare_data() { neupronet prepare vocalsound --root "$downloaded" --out "$data" ${preparation[@]+"${preparation[@]}"}; }
source "$(dirname "${BASH_SOURCE[0]}")/reproduce.sh"
