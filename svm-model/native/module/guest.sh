#!/bin/busybox sh
# Process 1 of the emulated machine: loads modules, runs the cases, powers off. Each case leaves on the second serial line
#
#   BEGIN NAME
#   what it printed, standard error marked with "! "
#   EXIT CODE
#
# and END stands last. What is right is decided outside, by tests/emulated.rs.
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

case_of probe-bare sevsim probe --format json
# Not loaded, and no module to load: said, with what to do.
case_of native-absent sevsim native --policy sticky-wbnoinvd
for module in irqbypass kvm ccp kvm-amd; do
	[ ! -e /$module.ko ] || insmod /$module.ko
done

# Loaded by the program, and unloaded by it.
flush="sevsim native --format json"
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
case_of kernel-log sh -c 'dmesg | grep -E "WARNING|BUG|Oops|stall|lockup" || true'

echo END >/dev/ttyS1
sync
poweroff -f
