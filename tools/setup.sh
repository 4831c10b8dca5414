#!/usr/bin/env bash
# What `make` needs before anything of ours can run: an interpreter, an environment, a few system tools.
#
#   setup.sh environment VENV LOCK… -- PACKAGE…   a virtual environment with the locked dependencies and our packages
#   setup.sh references VENV LOCK… -- PACKAGE…    the same, with torch before them: what tests/parity compares with
#   setup.sh system                               nftables and its like, where we may install them
#   setup.sh lock BIN                             write requirements/*.txt from requirements/*.in
#   setup.sh wheels BIN FOLDER                    what an archive carries so that the toolkit can be installed from it
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }

apt_install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
        return 1
    fi
    say "apt-get install $*"
    apt-get update -qq > /dev/null
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" > /dev/null
}

find_python() {
    local each
    for each in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
        if [ -n "$each" ] && "$each" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null; then
            command -v "$each"
            return
        fi
    done
    say "no Python from 3.11 to 3.13 was found"
    say "hint: install one, or name it: make PYTHON=/path/to/python3.11 …"
    exit 1
}

make_venv() { # VENV
    local python
    python=$(find_python)
    if ! "$python" -c 'import ensurepip' 2> /dev/null; then
        apt_install python3-venv || { say "hint: install python3-venv"; exit 1; }
    fi
    rm -rf "$1"
    "$python" -m venv "$1"
}

install_locked() { # VENV LOCK…
    local venv=$1 lock
    shift
    for lock in "$@"; do
        if [ "$lock" = requirements/bootstrap.txt ]; then
            "$venv/bin/pip" install -q --disable-pip-version-check --no-deps --require-hashes -r "$lock"
        elif ! "$venv/bin/uv" pip install -q --compile-bytecode --python "$venv/bin/python" --no-deps --require-hashes \
            -r "$lock"; then
            # pip reads settings of this machine that uv does not (an index of its own, say).
            "$venv/bin/pip" install -q --disable-pip-version-check --no-deps --require-hashes -r "$lock"
        fi
    done
}

install_ours() { # VENV PACKAGE…
    local venv=$1 name words=()
    shift
    if [ $# = 0 ]; then return; fi
    for name in "$@"; do words+=(-e "packages/sie-$name"); done
    "$venv/bin/uv" pip install -q --python "$venv/bin/python" --no-deps --no-index --no-build-isolation "${words[@]}"
    # Where PYTHONDONTWRITEBYTECODE is set nothing else would: every start would compile all that it imports.
    "$venv/bin/python" -m compileall -q packages/*/src
}

environment() { # VENV LOCK… -- PACKAGE…
    local venv=$1 locks=()
    shift
    while [ "$1" != -- ]; do locks+=("$1"); shift; done
    shift
    say "$venv (a minute at most)"
    make_venv "$venv"
    install_locked "$venv" "${locks[@]}"
    install_ours "$venv" "$@"
}

references() { # as environment
    local venv=$1 locks=()
    shift
    say "$venv: torch and what is compared with (minutes)"
    make_venv "$venv"
    # torch first and by itself: its wheel differs from machine to machine, so no lock can name its hash.
    "$venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0
    while [ "$1" != -- ]; do locks+=("$1"); shift; done
    shift
    install_locked "$venv" "${locks[@]}"
    install_ours "$venv" "$@"
}

system() {
    local missing=()
    PATH=$PATH:/usr/sbin:/sbin
    command -v nft > /dev/null || missing+=(nftables)
    command -v ip > /dev/null || missing+=(iproute2)
    command -v xorriso > /dev/null || missing+=(xorriso)
    if [ "${#missing[@]}" != 0 ] && ! apt_install "${missing[@]}"; then
        say "not installed, and not root to install it: ${missing[*]} (make demo may then not count attempts to leave; no disc is tried)"
    fi
}

lock() { # BIN
    local words=(--universal --python-version 3.11 --generate-hashes -q --no-emit-index-url --no-emit-find-links)
    words+=(--custom-compile-command "make lock")
    "$1/uv" pip compile requirements/bootstrap.in "${words[@]}" -o requirements/bootstrap.txt
    "$1/uv" pip compile requirements/dev.in "${words[@]}" --override requirements/overrides.txt -o requirements/dev.txt
    "$1/uv" pip compile requirements/carried.in "${words[@]}" -c requirements/dev.txt -o requirements/carried.txt
    "$1/uv" pip compile requirements/published-client.in --python-version 3.12 --generate-hashes -q \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
        -o requirements/published-client.txt
    "$1/uv" pip compile requirements/parity.in "${words[@]}" --override requirements/overrides-parity.txt \
        -c requirements/dev.txt -o requirements/parity.txt
    "$1/uv" pip compile requirements/spans.in "${words[@]}" --override requirements/overrides-parity.txt \
        -o requirements/spans.txt
    "$1/uv" pip compile requirements/infinity.in "${words[@]}" --override requirements/overrides-parity.txt \
        -o requirements/infinity.txt
    "$1/uv" pip compile requirements/fuzz.in "${words[@]}" -o requirements/fuzz.txt
}

wheels() { # BIN FOLDER
    local bin name machine version words
    bin=$(cd "$1" && pwd)
    mkdir -p "$2"
    for name in core sdk airgap; do
        say "the wheel of sie-$name, from this checkout"
        (cd "packages/sie-$name" && "$bin/python" -m hatchling build -t wheel -d "$OLDPWD/$2" > /dev/null 2>&1)
    done
    for machine in x86_64 aarch64; do
        for version in 3.11 3.12 3.13; do
            say "wheels for Python $version on $machine"
            words=(--no-deps --require-hashes --only-binary=:all: --implementation cp --python-version "$version")
            # pip takes no older glibc for one that is named, so each that wheels are built for is named.
            for each in 2_28 2_27 2_24 2_17 2_12 2_5; do words+=(--platform "manylinux_${each}_$machine"); done
            for each in 2014 2010 1; do words+=(--platform "manylinux${each}_$machine"); done
            "$bin/pip" download -q --disable-pip-version-check "${words[@]}" -r requirements/carried.txt -d "$2"
        done
    done
    say "$2: $(find "$2" -name '*.whl' | wc -l) wheels, $(du -sh "$2" | cut -f1)"
}

command=$1
shift
"$command" "$@"
