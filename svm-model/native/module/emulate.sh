#!/usr/bin/env bash
# Boots a stock Debian kernel in QEMU (software emulation, SVM on), builds the helper module for it with policies, and runs
# the cases of guest.sh there, twice: on 4 pCPUs, and on 8 pCPUs of two sockets with two L3 each, without WBNOINVD. What they
# printed is left in DIR/results and DIR/results-sockets; times in it mean nothing.
#
#   emulate.sh SEVSIM [DIR]
#
# SEVSIM: the built program. DIR: where to work, kept for the next time [target/emulated]. SELFTEST, if set: a test program
# of the svm-native package, to be run in there too. Debian's packages are downloaded and unpacked into DIR (about 60 MB);
# nothing is installed, and nothing is loaded into this machine's kernel. QEMU is taken from backports if there is a newer
# one: from 9 or 10 on it has WBNOINVD. Needs apt-get, dpkg-deb, gcc, make.
# Where that cannot be had it says so and ends with 77, or with 1 if CI is set: there it must not be left out.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
sevsim=$(realpath "${1:?usage: emulate.sh SEVSIM [DIR]}")
selftest=${SELFTEST:+$(realpath "$SELFTEST")}
dir=${2:-$here/../../../target/emulated}
mkdir -p "$dir"
dir=$(realpath "$dir")
cd "$dir"

begin=$(date +%s)
say() { printf '[%3d s] %s\n' "$(($(date +%s) - begin))" "$*"; }
skip() {
	if [ -n "${CI:-}" ]; then
		echo "the emulated run cannot be made, and in CI it must: $*" >&2
		exit 1
	fi
	echo "the emulated run is left out: $*"
	exit 77
}

for tool in apt-get apt-cache dpkg-deb gcc make ldd; do
	command -v $tool >/dev/null || skip "$tool is missing"
done

# This system's sources of packages and its backports, in lists of their own: those of the system stay as they are.
# The version of what is already installed counts for nothing, since all of it is unpacked.
apt() {
	local tool=$1
	shift
	"$tool" -o Dir::State::lists="$dir/apt/lists" -o Dir::Cache="$dir/apt/cache" -o Dir::Etc::sourcelist=/dev/null \
		-o Dir::Etc::sourceparts="$dir/apt/sources" "$@"
}
meta=linux-image-cloud-amd64
version() { apt apt-cache depends $meta 2>/dev/null | sed -n 's/.*Depends: linux-image-\(.*\)-cloud-amd64.*/\1/p' | head -n 1; }
if [ ! -e fetched ]; then
	rm -rf apt deb unpacked
	mkdir -p apt/{lists,cache,sources} deb unpacked
	find /etc/apt -name '*.list' -o -name '*.sources' | while read -r file; do cp "$file" apt/sources/; done
	# Backports come from where the host's own packages do: from the first source that is not the security updates'.
	suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)-backports
	mirror=$(find apt/sources -type f -exec sed -nE \
		-e 's/^URIs:[[:space:]]*([^[:space:]]+).*/\1/p' \
		-e 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]+)?([^[:space:]]+)[[:space:]].*/\2/p' {} + | grep -v security | head -n 1 || true)
	[ -z "$mirror" ] || echo "deb $mirror $suite main" >apt/sources/backports.list
	apt apt-get update -qq || true
	kernel=$(version)
	[ -n "$kernel" ] || skip "there is no package $meta here: Debian's package lists are needed"
	headers=linux-headers-$kernel-cloud-amd64
	# What QEMU needs beside what is here, as a dry run of an installation says.
	needs() { apt apt-get "$@" install -s --no-install-recommends qemu-system-x86 | sed -n 's/^Inst \([^ ]*\).*/\1/p'; }
	from="-t $suite"
	emulator=$(needs $from 2>/dev/null) || { from=''; emulator=$(needs); }
	build=$(apt apt-cache depends "$headers" | sed -n 's/.*Depends: \(linux-[^ ]*\).*/\1/p' | grep -v '^linux-image' | sort -u)
	(cd deb && apt apt-get $from download -qq $emulator &&
		apt apt-get download -qq busybox-static cpio linux-image-$kernel-cloud-amd64 "$headers" $build) \
		2> >(grep -v 'unsandboxed' >&2) || skip "the packages cannot be downloaded"
	for package in deb/*.deb; do dpkg-deb -x "$package" unpacked; done
	rm -rf deb apt
	echo "$kernel" >fetched
	say "fetched and unpacked, kernel $kernel"
fi
kernel=$(cat fetched)
# The headers name their own place, which is below this folder, wherever that was last time.
sed -i "s#[^ ]*/usr/src/#$dir/unpacked/usr/src/#" "unpacked/usr/src/linux-headers-$kernel-cloud-amd64/Makefile"
# An emulator that is installed needs no unpacking, and the dry run did not name it.
qemu="unpacked/usr/bin/qemu-system-x86_64 -L unpacked/usr/share/qemu -L unpacked/usr/share/seabios"
[ -e unpacked/usr/bin/qemu-system-x86_64 ] || qemu=qemu-system-x86_64

rm -rf module results console
"$sevsim" module module >/dev/null 2>&1
KDIR=$dir/unpacked/usr/src/linux-headers-$kernel-cloud-amd64 sh module/build.sh >build.log 2>&1 || { cat build.log; exit 1; }
! grep -E 'warning:' build.log || { echo "the module's build warns"; exit 1; }
say "module built: $(ls module/policy_*.c | wc -l) policies"

# Another one, of policies that loop: the module must get out of them.
rm -rf looping
mkdir -p loops
cat >loops/spin.c <<'END'
int go;
void sev_writeback_caches(struct kvm *kvm)
{
	while (READ_ONCE(go) == 0) {
	}
}
END
cat >loops/many.c <<'END'
static void many(void *unused)
{
	int i;

	for (i = 0; i < 40; i++)
		wbinvd();
}
void sev_writeback_caches(struct kvm *kvm)
{
	smp_call_function_single(0, many, NULL, true);
}
END
# With interrupts off, and with preemption off.
cat >loops/off.c <<'END'
int go;
DEFINE_SPINLOCK(lock);
void sev_writeback_caches(struct kvm *kvm)
{
	unsigned long flags;

	spin_lock_irqsave(&lock, flags);
	while (READ_ONCE(go) == 0) {
	}
	spin_unlock_irqrestore(&lock, flags);
}
END
sed 's/_irq[a-z]*//; s/, flags//; /unsigned/d' loops/off.c >loops/held.c
# Where a session begins and ends.
cat >loops/alloc.c <<'END'
int go;
int sev_alloc_tracking(struct kvm *kvm)
{
	while (READ_ONCE(go) == 0) {
	}
	return 0;
}
void sev_writeback_caches(struct kvm *kvm)
{
}
END
sed 's/^int sev_alloc/void sev_free/; /return/d' loops/alloc.c >loops/free.c
# A write-back everywhere, and a while that it takes besides.
cat >loops/slow.c <<'END'
void sev_writeback_caches(struct kvm *kvm)
{
	int i;

	wbinvd_on_all_cpus();
	for (i = 0; i < 30000; i++)
		cpu_relax();
}
END
"$sevsim" module looping $(printf -- '--policy %s ' loops/*.c) >/dev/null
KDIR=$dir/unpacked/usr/src/linux-headers-$kernel-cloud-amd64 sh looping/build.sh >build.log 2>&1 || { cat build.log; exit 1; }
! grep -E 'warning:' build.log || { echo "the module's build warns"; exit 1; }

# The initial file system: busybox, the program with its libraries, the modules.
rm -rf init
mkdir -p init/{bin,dev,proc,sys,etc,tmp,root,lib}
find unpacked -path '*bin/busybox' -exec cp {} init/bin/ \;
cp "$here/guest.sh" init/init
chmod +x init/init
strip -o init/bin/sevsim "$sevsim"
programs=$sevsim
if [ -n "$selftest" ]; then
	strip -o init/bin/selftest "$selftest"
	programs="$programs $selftest"
fi
ldd $programs | grep -o '/[^ ]* (0x' | cut -d' ' -f1 | sort -u | while read -r library; do
	mkdir -p "init$(dirname "$library")"
	cp -L "$library" "init$library"
done
mkdir init/policies
"$sevsim" show policy sticky-wbnoinvd >init/policies/sticky-wbnoinvd.c
cp module/sevsim_flush.ko init/
cp loops/*.c init/policies/
cp looping/sevsim_flush.ko init/looping.ko
strip --strip-debug init/sevsim_flush.ko init/looping.ko
for name in irqbypass kvm ccp kvm-amd; do
	find unpacked -path "*/modules/*" -name "$name.ko*" -exec cp {} init/ \;
done
libraries=$dir/unpacked/usr/lib/x86_64-linux-gnu:$dir/unpacked/lib/x86_64-linux-gnu
cpio=$(find "$dir/unpacked" -path '*bin/cpio')
(cd init && find . | LD_LIBRARY_PATH=$libraries "$cpio" -o -H newc --quiet) >initrd
say "initial file system: $(du -k initrd | cut -f1) KiB"

# One thread for all pCPUs: with one each, QEMU 7.2 has left a pCPU with nested guests stuck. The words on the kernel's command line
# that it does not know are the first process's environment. Its check of the timer at boot fails where a loaded host keeps QEMU
# waiting, and is left out.
boot() { # RESULTS PCPUS CPU [OPTION OF QEMU]...
	local results=$1 pcpus=$2 cpu=$3
	shift 3
	rm -f "$results" console
	LD_LIBRARY_PATH=$libraries timeout "${LIMIT:-240}" $qemu -nodefaults -nographic -no-reboot -M q35 \
		-accel tcg,thread=single -cpu "$cpu" -smp "$pcpus" "$@" \
		-serial file:console -serial "file:$results" -kernel "unpacked/boot/vmlinuz-$kernel-cloud-amd64" -initrd initrd \
		-append "console=ttyS0 panic=-1 quiet no_timer_check results=$results" </dev/null 2>emulator.log || true
	# A panic ends QEMU with 0 too: the guest's last line is the verdict.
	if ! tail -n 1 "$results" 2>/dev/null | tr -d '\r' | grep -qx END; then
		echo "the guest did not come to its end; its console:" >&2
		tail -n 30 console >&2
		exit 1
	fi
	say "booted, ran, powered off: $dir/$results"
}
say "$(LD_LIBRARY_PATH=$libraries $qemu --version | head -n 1)"
boot results 4 EPYC-Milan,+svm -m 1024
boot results-sockets 8,sockets=2 EPYC-Milan,+svm,-wbnoinvd -m 1536 \
	-object memory-backend-ram,id=m0,size=768M -numa node,nodeid=0,cpus=0-3,memdev=m0 \
	-object memory-backend-ram,id=m1,size=768M -numa node,nodeid=1,cpus=4-7,memdev=m1
