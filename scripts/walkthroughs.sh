#!/usr/bin/env bash
# Runs the walk-throughs: the commands of examples/NAME/README.md, as they stand there, in the repository's root.
#
#   bash scripts/walkthroughs.sh            all of them, on synthetic sound
#   bash scripts/walkthroughs.sh NAME…      some of them
#   --dry-run                               print the commands only
#
# What they write is in outputs/NAME, which is made anew.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

dry_run="" names=()
for argument in "$@"; do
    if [[ $argument == --dry-run ]]; then dry_run=yes; else names+=("$argument"); fi
done
[[ ${#names[@]} -gt 0 ]] || names=(own_data speakers machine_sounds own_backbone)

# The lines of a page's bash blocks.
commands() { awk '/^```/ { inside = $0 == "```bash"; next } inside' "examples/$1/README.md"; }

for name in "${names[@]}"; do
    [[ -f examples/$name/README.md ]] || fail "examples/$name/README.md: no such walk-through"
    [[ -n $(commands "$name") ]] || fail "examples/$name/README.md: holds no commands (\`\`\`bash blocks)"
done

if [[ -z $dry_run ]]; then
    bash scripts/setup.sh
    PATH="$(cd "$venv" && pwd)/bin:$PATH"
fi

for name in "${names[@]}"; do
    say "examples/$name"
    began=$SECONDS
    [[ -n $dry_run ]] || rm -rf "outputs/$name"
    while IFS= read -r command; do
        printf '$ %s\n' "$command"
        [[ -z $dry_run ]] || continue
        mkdir -p "outputs/$name"
        # A training says much; what its user reads is in its last lines.
        bash -o pipefail -c "$command" </dev/null 2>"outputs/$name/errors.log" | tee "outputs/$name/last.log" | {
            if [[ $command == fairseq-* ]]; then grep '^neupronet: ' || true; else cat; fi
        } || {
            tail -n 20 "outputs/$name/errors.log" "outputs/$name/last.log" >&2
            fail "examples/$name: a command failed: $command"
        }
    done < <(commands "$name")
    [[ -n $dry_run ]] || say "examples/$name: $((SECONDS - began)) s"
done
