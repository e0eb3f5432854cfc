#!/bin/sh
# Takes out of a virtual environment what a running JupyterLab never reads: half of its 240 MB.
# Usage: slim.sh <environment>
set -eu
packages=$(echo "$1"/lib/python3.*/site-packages)

# What installs packages; the environment belongs to root and stays as it was built.
rm -rf "$packages"/pip* "$packages"/setuptools* "$packages"/pkg_resources "$packages"/_distutils_hack \
    "$packages"/distutils-precedence.pth "$1"/bin/pip* "$1"/bin/activate* "$1"/bin/Activate*
# Jedi's type stubs of packages that are not here; it lists the folders, so they stay.
find "$packages/jedi/third_party/typeshed/stubs" "$packages/jedi/third_party/django-stubs" -mindepth 1 -delete
# Names of languages in other languages: no JupyterLab language pack is installed.
find "$packages/babel/locale-data" -name '*.dat' ! -name 'root.dat' ! -name 'en.dat' ! -name 'en_US.dat' -delete
# A grammar that takes a second of processor time to load, half of the server's start, so that JSON schemas can
# check a format (IRI) that Jupyter's do not have; jsonschema does without it.
rm -rf "$packages"/rfc3987_syntax* "$packages"/lark*
# JupyterLab's browser tests.
rm -rf "$packages/jupyterlab/galata"
# The debugger's sources in C and its way into processes of Windows.
find "$packages/debugpy" '(' -name '*.c' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.cpp' ')' -delete
rm -rf "$packages/debugpy/_vendored/pydevd/pydevd_attach_to_process/winappdbg"
find "$packages" -type d '(' -name tests -o -name test ')' -prune -exec rm -rf '{}' +
