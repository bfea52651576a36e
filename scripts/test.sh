#!/usr/bin/env bash
# Sets up, lints and tests. --slow runs the slow tests too; anything else goes to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

slow=""
arguments=()
for argument in "$@"; do
    if [[ $argument == --slow ]]; then
        slow=yes
    else
        arguments+=("$argument")
    fi
done

bash scripts/setup.sh
say "ruff"
"$venv/bin/python" -m ruff check .
"$venv/bin/python" -m ruff format --check .
say "pytest"
# Torch computes on one thread in the tests, so each of two processes has a core. A file's tests share what they trained.
"$venv/bin/python" -m pytest -n 2 --dist loadfile ${arguments[@]+"${arguments[@]}"}
[[ -n $slow ]] || exit 0

# Each file in a process of its own: the slow tests fork trainings, which want a process that has not trained before.
failed=()
for file in $(grep -lE 'mark\.slow' -r --include='test_*.py' tests | sort); do
    say "pytest, slow: $file"
    "$venv/bin/python" -m pytest -m slow "$file" ${arguments[@]+"${arguments[@]}"} || failed+=("$file")
done
[[ ${#failed[@]} -eq 0 ]] || fail "slow tests failed in ${failed[*]}"
