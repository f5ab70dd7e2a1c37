#!/bin/busybox sh
# Process 1 of the emulated machine: loads modules, runs the cases, powers off. Each case leaves on the second serial line
#
#   BEGIN NAME
#   what it printed, standard error marked with "! "
#   EXIT CODE
#
# and END stands last. What is right is decided outside, by tests/emulated.rs. Which cases, the name of the results says ($results, from
# the kernel's command line).
busybox=/bin/busybox
$busybox mount -t devtmpfs devtmpfs /dev
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t tracefs tracefs /sys/kernel/tracing
$busybox mount -t tmpfs tmpfs /tmp
$busybox --install -s /bin
export PATH=/bin HOME=/root NO_COLOR=1
echo 'root:x:0:0::/root:/bin/sh' >/etc/passwd
echo 'nobody:x:65534:65534::/:/bin/sh' >>/etc/passwd
exec </dev/null >/dev/console 2>&1
stty -F /dev/ttyS1 raw 115200

case_of() {
	name=$1
	shift
	"$@" >/tmp/out 2>/tmp/err
	code=$?
	{
		echo "BEGIN $name"
		cat /tmp/out
		sed 's/^/! /' /tmp/err
		echo "EXIT $code"
	} >/dev/ttyS1
	echo "case $name: $code after $(cut -d' ' -f1 /proc/uptime) s"
}

flush="sevsim native --format json"
load_kvm() {
	for module in irqbypass kvm ccp kvm-amd; do
		[ ! -e /$module.ko ] || insmod /$module.ko
	done
}

# What is there on 4 pCPUs, and what is refused.
cases_of_all() {
	case_of probe-bare sevsim probe --format json
	# Not loaded, and no module to load: said, with what to do.
	case_of native-absent sevsim native --policy sticky-wbnoinvd
	load_kvm

	# Loaded by the program, and unloaded by it.
	case_of native-sticky-wbnoinvd $flush --policy sticky-wbnoinvd --load-module /sevsim_flush.ko --vcpus 2
	case_of modules-after cat /proc/modules

	insmod /sevsim_flush.ko
	case_of modules cat /proc/modules
	case_of probe sevsim probe --format json
	case_of native-clear-in-handler $flush --policy clear-in-handler --load-module /sevsim_flush.ko
	case_of native-all-wbinvd $flush --policy all-wbinvd --moving 100
	case_of native-no-flush $flush --policy no-flush --held 5 --moving 0
	case_of native-every $flush --held 3 --moving 10
	sed 's/wbnoinvd_on_cpus_mask/wbinvd_on_cpus_mask/' /policies/sticky-wbnoinvd.c >/tmp/other.c
	case_of calibrate timeout -s INT 60 sevsim calibrate --quick --out /tmp/profile.toml
	case_of profile cat /tmp/profile.toml
	case_of native-other-text $flush --policy /tmp/other.c
	case_of native-oracle $flush --policy oracle

	# What the module itself refuses, and that it does no more than it is asked for.
	[ ! -e /bin/selftest ] || SEVSIM_MODULE=1 case_of selftest selftest --test-threads 1 helper::
	# The kernel's own flush sites under kprobes, with a plain guest, and SEV's calls up to the refusal.
	[ ! -e /bin/selftest ] || case_of selftest-sev selftest --test-threads 1 --nocapture sev::real:: perf:: guest::

	# Not root: neither where the device is root's, nor where it is everybody's.
	case_of not-root su -s /bin/sh nobody -c 'sevsim native --policy sticky-wbnoinvd --yes-flush-this-host'
	chmod 666 /dev/sevsim_flush
	case_of not-root-open-device su -s /bin/sh nobody -c 'sevsim native --policy sticky-wbnoinvd --yes-flush-this-host'
	chmod 600 /dev/sevsim_flush

	# Killed, and interrupted, in the middle: the module is free again, and goes on.
	killed_by() {
		$flush --policy sticky-wbnoinvd --held 0 --moving 100000 >/tmp/killed 2>&1 &
		sleep 3
		kill -$1 $!
		wait $!
		echo "ended with $?"
		cat /tmp/killed
	}
	case_of killed killed_by KILL
	case_of interrupted killed_by INT
	case_of native-after-kill $flush --policy sticky-wbnoinvd --held 5 --moving 0
	case_of unload rmmod sevsim_flush
	case_of modules-end cat /proc/modules

	# A policy that waits in a loop for what never comes, and one that writes back again and again.
	loops() {
		timeout -s KILL 60 $flush --policy "/policies/$1.c" --load-module /looping.ko --moves 1 --flushers 1 --held "$2" --moving "$3"
	}
	case_of native-spin loops spin 1 0
	case_of native-many loops many 0 3
	insmod /looping.ko
	[ ! -e /bin/selftest ] || SEVSIM_MODULE=1 case_of selftest-loops selftest --test-threads 1 loop under_way
	killed_in_loop() {
		loops $1 1 "$2" &
		# A slow host takes its time to start it; the loop would end by itself after 5 s.
		for n in $(seq 1 300); do
			pid=$(pidof sevsim) && break
			sleep 0.1
		done
		sleep 2
		began=$(cut -d. -f1 /proc/uptime)
		kill -KILL $pid
		wait $!
		echo "ended with $? after $(($(cut -d. -f1 /proc/uptime) - began)) s"
		# Its file is closed by whichever of its threads ends last.
		for n in $(seq 1 100); do
			rmmod sevsim_flush 2>/dev/null && break
			sleep 0.1
		done
		echo "unloaded: $(grep -c '^sevsim_flush' /proc/modules) left"
	}
	case_of killed-in-loop killed_in_loop spin 0
	# Killed, it closes its file, where the policy's text loops: no signal comes there any more.
	insmod /looping.ko
	case_of killed-into-loop killed_in_loop free 100000
	case_of kernel-log sh -c 'dmesg | grep -E "WARNING|BUG|Oops|stall|lockup" || true'
}

# Two sockets, two L3 each, clocks with governors. This kernel takes a socket for an L3 under emulation, and has no clocks to set: its
# folders of the pCPUs are laid over by copies that say otherwise.
cases_of_sockets() {
	for n in 0 1 2 3 4 5 6 7; do
		cpu=/sys/devices/system/cpu/cpu$n
		mkdir -p /tmp/cpu$n/cpufreq
		cp -r $cpu/topology $cpu/cache /tmp/cpu$n/ 2>/dev/null
		echo "$((n / 2 * 2))-$((n / 2 * 2 + 1))" >/tmp/cpu$n/cache/index3/shared_cpu_list
		echo schedutil >/tmp/cpu$n/cpufreq/scaling_governor
		echo "performance schedutil" >/tmp/cpu$n/cpufreq/scaling_available_governors
		mount -o bind /tmp/cpu$n $cpu
	done
	load_kvm
	governors() {
		echo "governors $(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor) $(cat /sys/devices/system/cpu/cpu7/cpufreq/scaling_governor)"
	}
	case_of probe sevsim probe --format json
	case_of native-sticky-wbnoinvd $flush --policy sticky-wbnoinvd --vcpus 2 --load-module /sevsim_flush.ko
	case_of calibrate timeout -s INT 100 sevsim calibrate --quick --governor performance --load-module /sevsim_flush.ko \
		--out /tmp/profile.toml
	case_of profile cat /tmp/profile.toml
	case_of governors-after governors
	case_of modules-after cat /proc/modules

	# Interrupted twice, or ended twice, where it waits for somebody to read what it says: the clocks are set then, and the module is
	# loaded.
	twice() {
		rm -f /tmp/pipe
		mkfifo /tmp/pipe
		exec 3<>/tmp/pipe
		head -c 65536 /dev/zero >&3
		sevsim calibrate --quick --governor performance --load-module /sevsim_flush.ko >/dev/null 2>/tmp/pipe &
		sleep 2
		echo "meanwhile: $(governors), modules $(grep -c '^sevsim_flush' /proc/modules)"
		kill -$1 $!
		sleep 1
		kill -$1 $!
		wait $!
		echo "ended with $?"
		exec 3>&-
		echo "then: $(governors), modules $(grep -c '^sevsim_flush' /proc/modules)"
	}
	case_of interrupted-twice twice INT
	case_of ended-twice twice TERM
	case_of kernel-log sh -c 'dmesg | grep -E "WARNING|BUG|Oops|stall|lockup" || true'
}

case $results in
*-sockets) cases_of_sockets ;;
*) cases_of_all ;;
esac

echo END >/dev/ttyS1
sync
poweroff -f
