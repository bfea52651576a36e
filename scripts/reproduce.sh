# Sourced by the scripts that are named after a data set: from the downloaded data to the finished table.
#
# Expects `dataset`, the array `cells` (NAME=SUFFIX: where below $data the cells of a data set of the benchmark's config
# have their data), `metrics` (of the report), the array `preparation` (further options of neupronet prepare) and the
# function `prepare_data`, which writes below $data what is made of $downloaded.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage="options: --root DIR (the downloaded data set), --out DIR (default outputs/$dataset), --jobs N (trainings at a
time), --quick (a few updates: does it run?), --dry-run (print the plan, train nothing), --allow-missing (leave out clips
whose audio is missing); KEY=VALUE settings go to neupronet benchmark"

downloaded="" out="" benchmark=() dry_run="" quick=""
while [ $# -gt 0 ]; do
    case "$1" in
        --root | --out | --jobs)
            [ $# -ge 2 ] || fail "$1 needs a value; $usage"
            case "$1" in
                --root) downloaded=$2 ;;
                --out) out=$2 ;;
                --jobs) benchmark+=(--jobs "$2") ;;
            esac
            shift 2
            ;;
        --quick) quick=yes; shift ;;
        --dry-run) dry_run=yes; shift ;;
        --allow-missing) preparation+=(--allow-missing); shift ;;
        -h | --help) say "$usage"; exit 0 ;;
        *=*) benchmark+=("$1"); shift ;;
        *) fail "unknown option $1; $usage" ;;
    esac
done
[ -n "$downloaded" ] || fail "--root is missing: where to get the data is in examples/${dataset//_/-}/README.md"
absolute() { case "$1" in /*) echo "$1" ;; *) echo "$started_in/$1" ;; esac; }
downloaded=$(absolute "$downloaded")
[ -d "$downloaded" ] || fail "$downloaded: no such folder; where to get the data is in examples/${dataset//_/-}/README.md"
out=$(absolute "${out:-$root/outputs/$dataset${quick:+-quick}}")
data=$out/data

bash scripts/setup.sh
PATH="$(cd "$venv" && pwd)/bin:$PATH"

# The plan counts updates by the manifests, so that these are made for a dry run too.
say "features and manifests"
prepare_data
for cell in "${cells[@]}"; do
    benchmark+=("datasets.${cell%%=*}.data=$data${cell#*=}")
done
benchmark+=(${quick:+--quick} ${dry_run:+--dry-run})
neupronet benchmark "configs/benchmark/$dataset.yaml" --out "$out" "${benchmark[@]}"
[ -z "$dry_run" ] || exit 0
neupronet report "$out/results.csv" --out "$out/report" --reference base --metrics "$metrics"
cat "$out/report/tables.md"
