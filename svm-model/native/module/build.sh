#!/bin/sh
# Builds sevsim_flush.ko in this folder, against the headers of the running kernel or of the folder KDIR. Loads nothing.
# Needs make, a C compiler (the kernel's own; GCC 12 or Clang 16 at least) and the kernel's headers (Debian:
# linux-headers-$(uname -r); Fedora, RHEL: kernel-devel).
set -eu
cd "$(dirname "$0")"

KDIR=${KDIR:-/lib/modules/$(uname -r)/build}
if [ ! -e "$KDIR/Makefile" ]; then
	echo "$KDIR has no Makefile: install the headers of this kernel (Debian: apt-get install linux-headers-$(uname -r))," >&2
	echo "or name them: KDIR=/usr/src/linux-headers-VERSION sh $0" >&2
	exit 1
fi
# Type information for BPF wants a tool and the kernel's image; nothing here needs it.
make -j "$(nproc)" -C "$KDIR" M="$PWD" CONFIG_DEBUG_INFO_BTF_MODULES= ${CC:+CC="$CC"} modules
echo "built $PWD/sevsim_flush.ko; to load it: sevsim native --load-module $PWD/sevsim_flush.ko, or insmod, as root"
