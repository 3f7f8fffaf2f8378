# Sourced by other scripts: find_cpython MINOR prints a CPython 3.MINOR that is installed here, on PATH or below pyenv's versions.

# A name on PATH may be a version manager's shim that only prints an error, so each candidate has to prove itself.
find_cpython() {
    for candidate in "$(command -v "python3.$1" || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$1".*/bin/python3; do
        if "$candidate" -c "import sys, venv, ensurepip; sys.exit(sys.implementation.name != 'cpython' or sys.version_info[:2] != (3, $1))" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}
