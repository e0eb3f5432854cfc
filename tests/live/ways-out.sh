#!/bin/bash
# Try the known ways from root on a host container to the controller, and print the name of each that is open. What a
# way would do is harmless: it writes what is there already, or reads one byte.
open() { echo "open: $*"; }
# A setting of the whole kernel, or a program that the kernel starts as root of the controller.
for file in /proc/sys/kernel/{core_pattern,modprobe,hotplug,poweroff_cmd,sysrq,panic,core_uses_pid} \
    /proc/sys/kernel/usermodehelper/{bset,inheritable} /proc/sys/fs/binfmt_misc/register \
    /proc/sys/{fs/file-max,vm/drop_caches,vm/overcommit_memory} /proc/sysrq-trigger \
    /sys/kernel/uevent_helper /sys/power/state; do
    [ ! -e "$file" ] || ! { was=$(cat "$file" 2>/dev/null); echo "$was" >"$file"; } 2>/dev/null || open "$file"
done
[ "$(head -c 1 /proc/kcore 2>/dev/null | wc -c)" = 0 ] || open /proc/kcore

# Disks and memory, by a node that root makes here, before and after it has asked for more devices.
nodes() {
    local node type major minor
    awk 'NR > 2 { print "b", $1, $2 } END { print "c 1 1\nc 1 4\nc 10 237" }' /proc/partitions |
        while read -r type major minor; do
            node=/root/way-out
            mknod "$node" "$type" "$major" "$minor" || continue
            ! { exec 3<"$node"; } 2>/dev/null || open "device $type $major:$minor $1"
            rm -f "$node"
        done
}
nodes "as it is"
find /sys/fs/cgroup -name devices.allow | while read -r file; do
    for rule in a 'b *:* rwm' 'c 1:* rwm'; do
        ! { echo "$rule" >"$file"; } 2>/dev/null || open "$file: $rule"
    done
done
nodes "after devices.allow"

# Control groups: a hierarchy of one's own, and those of the controller by a mount of one's own. release_agent is a
# program that the kernel starts, and lies in the controller's root group alone.
mount=/root/way-out
mkdir -p "$mount"
for options in none,name=way-out $(awk 'NR > 1 { print $1 }' /proc/cgroups) name=systemd; do
    mount -t cgroup -o "$options" way-out "$mount" 2>/dev/null || continue
    [ "$options" != none,name=way-out ] || open "a hierarchy of its own"
    [ ! -e "$mount/release_agent" ] || open "release_agent of $options"
    [ ! -e "$mount/devices.allow" ] || ! { echo 'b *:* rwm' >"$mount/devices.allow"; } 2>/dev/null ||
        open "devices.allow of another mount"
    umount "$mount"
done
rmdir "$mount"

# System calls: a file by its handle, root's keys, a module, the swap. Both lists have the numbers of syscalls(2).
case $(uname -m) in
x86_64) calls="303 304 250 175 168" ;;
aarch64) calls="264 265 219 105 225" ;;
esac
# shellcheck disable=SC2086 # one word per number is meant
perl -e '
    my ($name, $open, $keys, $module, $swapoff) = @ARGV;
    my ($file, $handle, $mount, $empty) = ("/etc/hosts", pack("Ii", 128, 0) . "\0" x 128, pack("i", 0), "");
    syscall($name, -100, $file, $handle, $mount, 0) == 0 or print "failed: no handle of $file: $!\n";
    open(my $there, "<", $file);
    syscall($open, fileno($there), $handle, 0) == -1 or print "open: open_by_handle_at\n";
    syscall($keys, 0, -4, 0) == -1 or print "open: the keys of root\n";
    # A kernel may be built without modules, or swap.
    my $none = "/nowhere";
    syscall($module, 0, 0, $empty) == -1 and $!{EPERM} || $!{ENOSYS} or print "open: init_module: $!\n";
    syscall($swapoff, $none) == -1 and $!{EPERM} || $!{ENOSYS} or print "open: swapoff: $!\n";
' $calls
echo tried
