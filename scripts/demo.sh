#!/usr/bin/env bash
# From sound to three evaluated models and what they tell: the plain backbone, the official form of NeuProNet, and
# normalisation by the source, each for clips alone, with three enrolled clips, and with all clips of the source.
#
#   bash scripts/demo.sh                     on a synthetic corpus that it makes, under 8 minutes on 2 cores
#   bash scripts/demo.sh --vocalsound DIR    on VocalSound (DIR: VocalSound-1s unpacked, or the official release),
#                                            every third training speaker and 64 mels, under an hour and a half
#   options: --seed S (of the corpus, the trainings and the draws; default 1), --out DIR (default outputs/demo or
#   outputs/demo-vocalsound), --smallest (a few clips and updates: does it run?)
#
# The same command resumes what was interrupted.
set -euo pipefail
started_in=$PWD
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

vocalsound="" out="" smallest="" seed=1
while [ $# -gt 0 ]; do
    case "$1" in
        --vocalsound | --out)
            [ $# -ge 2 ] || fail "$1 needs a folder"
            folder=$2
            [[ $folder == /* ]] || folder=$started_in/$folder
            if [ "$1" = --out ]; then out=$folder; else vocalsound=$folder; fi
            shift 2
            ;;
        --seed)
            [[ ${2:-} =~ ^[0-9]{1,9}$ ]] || fail "--seed needs a whole number from 0 up"
            seed=$2
            shift 2
            ;;
        --smallest) smallest=yes; shift ;;
        *) fail "unknown option $1; the options are --vocalsound DIR, --seed S, --out DIR and --smallest" ;;
    esac
done
[ -z "$vocalsound" ] || [ -d "$vocalsound" ] || fail "$vocalsound: no such folder; unpack VocalSound and give its folder"
other_seed=$([ "$seed" = 1 ] || echo "-seed-$seed")
out=${out:-outputs/demo${vocalsound:+-vocalsound}$other_seed${smallest:+-smallest}}

bash scripts/setup.sh
exec "$venv/bin/python" scripts/demo.py --out "$out" --seed "$seed" ${vocalsound:+--vocalsound "$vocalsound"} ${smallest:+--smallest}
