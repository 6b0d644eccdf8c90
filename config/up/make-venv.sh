#!/bin/sh
# make-venv.sh PYTHON VENV: a virtual environment, or one sentence that says what is missing.
python=$1 venv=$2

if ! command -v "$python" >/dev/null 2>&1; then
    echo "Python is missing; install 3.11 or newer (on Debian: apt-get install python3 python3-venv)." >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Meterbook needs Python 3.11 or newer and $python is $("$python" -V 2>&1); try \`make run PYTHON=python3.11\`." >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    # Debian keeps the part that makes environments in a package of its own.
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    package=python$version-venv
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "Installing Debian's $package."
        { apt-get install -qq -y --no-install-recommends "$package" ||
            { apt-get update -qq && apt-get install -qq -y --no-install-recommends "$package"; }; } >/dev/null 2>&1
    fi
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        echo "Python's venv module is missing; run \`sudo apt-get install $package\` and try again." >&2
        exit 1
    fi
fi
if ! "$python" -m venv "$venv" >/dev/null; then
    echo "No virtual environment could be made in $(pwd)/$venv; is there room, and may $(id -un) write there?" >&2
    exit 1
fi
