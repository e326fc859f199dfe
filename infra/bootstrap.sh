#!/bin/sh
# Makes the Python environment that the Makefile's targets run in, and says what it does.
#
#   sh infra/bootstrap.sh runtime   .venv with what the command needs        (requirements.lock)
#   sh infra/bootstrap.sh dev       the same .venv, with the tests' tools    (requirements-dev.lock)
#   sh infra/bootstrap.sh bench     .venv-bench, with the compared programs  (requirements-bench.lock)
#
# Needs Python 3.11 or newer (PYTHON=... names one) and a package index.  Uses uv where it is installed, else venv and pip.
# Whatever is installed has its hash in a lock file.  What is up to date is left alone: the stamp in the environment
# holds a checksum over pyproject.toml, the lock file and the C files it was made from.
#
# One thing is of the machine and not of the environment: the browser that `dev` tests pages in.  Where there is none,
# root on a machine with apt-get gets Debian's Chromium; everybody else is told, and those tests say what they lack.
set -eu

cd "$(dirname "$0")/.."
root=$(pwd -P)
python_min="(3, 11)"

say() { printf 'bootstrap: %s\n' "$*"; }
fail() { printf 'bootstrap: error: %s\n' "$*" >&2; exit 2; }

lock_of() {
    case $1 in
        runtime) echo requirements.lock ;;
        dev | bench) echo "requirements-$1.lock" ;;
    esac
}

checksum_of() { cat pyproject.toml "$(lock_of "$1")" infra/bootstrap.sh pipeline/compiled/*.[ch] | cksum; }

is_stamped() { [ -f "$venv/.stamp-$1" ] && [ "$(cat "$venv/.stamp-$1")" = "$(checksum_of "$1")" ]; }

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

is_new_enough() { "$1" -c "import sys; sys.exit(sys.version_info < $python_min)" >/dev/null 2>&1; }

# An environment that was moved or copied still runs, but its scripts point at the old place: that counts as not usable.
is_usable() {
    is_new_enough "$venv/bin/python" && grep -qF "$root/$venv" "$venv/bin/activate" 2>/dev/null || return 1
    [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of "$venv/bin/python")" ]
}

# Debian and Ubuntu ship Python without ensurepip unless python3-venv is installed; uv does without it.
can_make_venv() { $has_uv || "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# The versions that every locked package has wheels for come first; an even newer python3 is the last resort.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_new_enough "$PYTHON" || fail "PYTHON=$PYTHON does not run, or is older than Python 3.11"
        can_make_venv "$PYTHON" || fail "$PYTHON has no venv module: install it (Debian, Ubuntu: python3-venv) or uv"
        python=$PYTHON
        return
    fi
    lacks_venv=
    for python in python3.13 python3.12 python3.11 python3.14 python3 python; do
        is_new_enough "$python" || continue
        can_make_venv "$python" && return
        lacks_venv="${lacks_venv:-$python}"
    done
    [ -z "$lacks_venv" ] || fail "$lacks_venv has no venv module: install it (Debian, Ubuntu: python3-venv) or uv"
    fail "no Python 3.11 or newer on PATH: install one, or name one with 'make ... PYTHON=/path/to/python3'"
}

make_venv() {
    find_python
    if [ -e "$venv" ]; then
        say "$venv is of another place or Python: removing it"
        rm -rf "$venv"
    fi
    say "making $venv with $python ($(version_of "$python")) and $installer"
    if $has_uv; then
        uv venv --quiet --python "$python" "$root/$venv"
    else
        "$python" -m venv "$root/$venv"
    fi
    echo '*' >"$venv/.gitignore"
}

# Progress for a person who waits; a log gets the lines of this script and the errors.
install() {
    quiet=--quiet
    [ ! -t 1 ] || quiet=
    if $has_uv; then
        uv pip install $quiet --python "$venv/bin/python" "$@"
    else
        "$venv/bin/python" -m pip install $quiet --disable-pip-version-check "$@"
    fi
}

has_browser() {
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        command -v "$name" >/dev/null 2>&1 && return
    done
    return 1
}

# Never fails: a machine without a browser is good for everything but a few tests.  Tried once for each environment.
ensure_browser() {
    ! has_browser && [ ! -f "$venv/.stamp-browser" ] || return 0
    : >"$venv/.stamp-browser"
    if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
        say "no Chromium on PATH, and only root with apt-get could install it here: tests of pages will not run"
        return 0
    fi
    say "installing chromium by apt-get: the tests of pages run in a real browser"
    log="$venv/browser.log"
    if { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium; } \
        >"$log" 2>&1 && has_browser; then
        rm -f "$log"
    else
        say "could not install chromium ($log says why): tests of pages will not run"
    fi
}

kind=${1:-}
case $kind in
    runtime | dev) venv=.venv ;;
    bench) venv=.venv-bench ;;
    *) fail "usage: sh infra/bootstrap.sh runtime|dev|bench" ;;
esac

has_uv=false
installer="venv and pip (uv is not installed)"
if command -v uv >/dev/null 2>&1; then
    has_uv=true
    installer=uv
    export UV_PYTHON_DOWNLOADS=never
fi

if is_usable; then
    # The dev lock holds every pin of the runtime lock, so a dev environment serves both.
    if is_stamped "$kind" || { [ "$kind" = runtime ] && is_stamped dev; }; then
        [ "$kind" != dev ] || ensure_browser
        exit 0
    fi
    say "bringing $venv up to date with $installer"
    $has_uv || "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >/dev/null
else
    make_venv
fi

lock=$(lock_of "$kind")
rm -f "$venv"/.stamp-*
say "installing $(grep -c '==' "$lock") packages, each checked against its hash in $lock"
install --require-hashes -r "$lock"
rm -f pipeline/compiled/_loops*.so # where the build fails, no older one is to be taken for it
say "installing stillwatch itself, from this folder"
install --no-deps --no-build-isolation --editable .
for library in pipeline/compiled/_loops*.so; do
    [ -f "$library" ] || say "no compiled code could be built (is there a C compiler, cc?): the job is slower, with the same results"
done
checksum_of "$kind" >"$venv/.stamp-$kind"
[ "$kind" != dev ] || ensure_browser
say "done: $venv/bin/stillwatch is ready"
