#!/bin/bash
# For `git bisect run` in a source tree of QEMU: builds it and runs the reproducer beside this file.
#
#   cd qemu && git bisect start BAD GOOD && git bisect run .../bisect.sh
#
# BUILD      the folder to build in, kept between steps [build]
# CONFIGURE  options for QEMU's configure [a small QEMU: the block layer and its programs]
#
# Exit code: 0 this QEMU behaves, 1 the bug is there, 125 it does not build or could not be tried.

set -u
here=$(cd "$(dirname "$0")" && pwd)
build=${BUILD:-build}
options=${CONFIGURE:---target-list=x86_64-softmmu --without-default-features --enable-tools --enable-kvm --disable-werror}

[[ -x configure ]] || { echo "run this in a source tree of QEMU"; exit 125; }
if [[ ! -e $build/build.ninja ]]; then
    source=$PWD
    # shellcheck disable=SC2086 # the options are words
    mkdir -p "$build" && (cd "$build" && "$source/configure" $options) || exit 125
fi
ninja -C "$build" qemu-system-x86_64 qemu-img qemu-io || exit 125
build=$(cd "$build" && pwd)
QEMU_PROG=$build/qemu-system-x86_64 QEMU_IMG_PROG=$build/qemu-img QEMU_IO_PROG=$build/qemu-io \
    bash "$here/reproduce.sh"
