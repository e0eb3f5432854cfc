#!/bin/sh
# Removes files that a running JupyterLab never reads from a virtual environment: half of its 240 MB.
# Usage: slim.sh <environment> [packages]
# With `packages` only the tests of the packages that notebooks import by default.
set -eu
packages=$(echo "$1"/lib/python3.*/site-packages)

tests() { find "$@" -type d '(' -name tests -o -name test ')' -prune -exec rm -rf '{}' +; }

if [ "${2-}" = packages ]; then
    # Only of these, because a package of the operator's list may import its own tests.
    for package in matplotlib pandas scipy; do
        [ ! -d "$packages/$package" ] || tests "$packages/$package"
    done
    exit
fi

# What made the environment; pip stays, for the user's own environment.
rm -rf "$packages"/setuptools* "$packages"/pkg_resources "$packages"/_distutils_hack \
    "$packages"/distutils-precedence.pth "$1"/bin/activate* "$1"/bin/Activate*
# Jedi's type stubs of packages that are not installed. The folders stay, because it lists them.
find "$packages/jedi/third_party/typeshed/stubs" "$packages/jedi/third_party/django-stubs" -mindepth 1 -delete
# Language names in other languages, because no JupyterLab language pack is installed.
find "$packages/babel/locale-data" -name '*.dat' ! -name 'root.dat' ! -name 'en.dat' ! -name 'en_US.dat' -delete
# A grammar that takes a second of processor time to load, half of the server's start. It checks a format of JSON
# schemas (IRI) that Jupyter's schemas do not have, and is optional for jsonschema.
rm -rf "$packages"/rfc3987_syntax* "$packages"/lark*
# JupyterLab's browser tests.
rm -rf "$packages/jupyterlab/galata"
# The debugger's C sources, and its code for Windows.
find "$packages/debugpy" '(' -name '*.c' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.cpp' ')' -delete
rm -rf "$packages/debugpy/_vendored/pydevd/pydevd_attach_to_process/winappdbg"
tests "$packages"
