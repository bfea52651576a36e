#!/usr/bin/env bash
# Runs the tests on Python 3.11 and 3.12, each with the oldest and the newest torch that setup.py allows, in
# environments of their own; warnings that our code causes are errors, as pyproject.toml says. Options go to pytest:
#   scripts/versions.sh                                  four runs of the whole suite
#   NEUPRONET_VERSIONS="3.12:oldest" scripts/versions.sh tests/test_manifest.py
#   NEUPRONET_VERSIONS_DIR                               where the environments are kept (default: .versions; 6 GB each)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

combinations=${NEUPRONET_VERSIONS:-3.11:oldest 3.11:newest 3.12:oldest 3.12:newest}
folder=${NEUPRONET_VERSIONS_DIR:-$root/.versions}
[[ $folder == /* ]] || folder=$PWD/$folder
# torchaudio and torchvision of the oldest torch; pip finds those of the newest.
oldest=(torch==2.6.0 torchaudio==2.6.0 torchvision==0.21.0)
newest=(torch torchaudio torchvision)
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

grep -q '"torch>=2\.6"' setup.py || fail "setup.py names another oldest torch than this script: make them the same."

# Prints a Python of version $1 that runs and can make environments.
find_python() {
    local candidate
    for candidate in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python /usr/bin/"python$1"; do
        "$candidate" -c "import ensurepip, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null \
            && { echo "$candidate"; return; }
    done
    return 1
}

install() { "$python" -m pip install -q "$@" >>"$log" 2>&1; }

# The tested versions of everything but torch's own three, which the combination decides.
pin() {
    grep -vE '^(torch|torchaudio|torchvision|sympy|networkx)==' scripts/constraints.txt >"$environment/constraints.txt"
}

make_environment() {
    local which=$1 base=$2
    rm -rf "$environment"
    "$base" -m venv "$environment"
    local -n torch_versions=$which
    pin
    install -c "$environment/constraints.txt" pip setuptools wheel cython numpy \
        && install -c "$environment/constraints.txt" "${torch_versions[@]}" && touch "$environment/complete"
}

# Whatever this tree needs by now, which may be more than when the environment was made.
install_package() {
    pin
    # Nothing installed from here on may replace the torch of this combination.
    "$python" -m pip freeze | grep -E '^(torch|torchaudio|torchvision)==' >>"$environment/constraints.txt"
    install -c "$environment/constraints.txt" --no-build-isolation fairseq-fixed \
        && install -c "$environment/constraints.txt" --no-build-isolation -e '.[fairseq,test]'
}

failed=0
mkdir -p "$folder"
for combination in $combinations; do
    version=${combination%%:*} which=${combination##*:}
    [[ $which == oldest || $which == newest ]] || fail "$combination: write VERSION:oldest or VERSION:newest."
    environment=$folder/$version-$which python=$folder/$version-$which/bin/python log=$folder/$version-$which.log
    base=$(find_python "$version") || { say "$combination: no Python $version here, skipped"; failed=1; continue; }
    if [[ ! -e $environment/complete ]]; then
        say "$combination: making $environment (log: $log)"
        : >"$log"
        make_environment "$which" "$base" || { say "$combination: set-up failed, see $log"; failed=1; continue; }
    fi
    install_package || { say "$combination: the package could not be installed, see $log"; failed=1; continue; }
    found=$("$python" -c 'import platform, torch; print("Python", platform.python_version(), "torch", torch.__version__)')
    say "$combination: $found"
    "$python" -m pytest -q -p no:cacheprovider "$@" && result=passed || { result=failed; failed=1; }
    say "$combination: $found: $result"
done
exit "$failed"
