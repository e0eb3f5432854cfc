#!/bin/sh
# Boot the machine of this image as $NAME, with this container's address, and /keys' host key and user's key. Its console
# is this container's output. Where the processor's virtualisation cannot be had, it is emulated.
set -eu
exec 2>&1
root=/machine
address=$(ip -o -4 address show dev eth0 | awk '{ print $4 }')
gateway=$(ip route show default | awk '{ print $3 }')

echo "$NAME" >"$root/etc/hostname"
printf '127.0.0.1 localhost\n%s %s\n' "${address%/*}" "$NAME" >"$root/etc/hosts"
printf '[Match]\nName=eth0\n[Network]\nAddress=%s\nGateway=%s\n' "$address" "$gateway" \
    >"$root/etc/systemd/network/eth0.network"
install -m 0600 "/keys/$NAME" "$root/etc/ssh/ssh_host_ed25519_key"
install -m 0600 /keys/key.pub "$root/root/.ssh/authorized_keys"
mke2fs -q -t ext4 -d "$root" /disk 6G

# The machine takes this container's place on the network.
ip link add bridge0 type bridge
ip tuntap add tap0 mode tap
ip address flush dev eth0
for link in eth0 tap0; do
    ip link set "$link" master bridge0 up
done
ip link set bridge0 up

# Two machines have to have two addresses.
mac=$(echo "${address%/*}" | awk -F . '{ printf "52:54:00:%02x:%02x:%02x", $2, $3, $4 }')
# A device that is there may be of a hypervisor on which no machine runs, or none gets further than its BIOS.
acceleration=tcg,thread=multi
if timeout 30 qemu-system-x86_64 -nographic -no-reboot -machine q35 -cpu max -m 1000 -accel kvm -net none \
    -kernel "$root/vmlinuz" -append 'console=ttyS0 panic=-1' </dev/null 2>&1 | grep -q 'Linux version'; then
    acceleration=kvm
fi
echo "booting $NAME at $address with $acceleration"
exec qemu-system-x86_64 -nographic -machine q35 -cpu max -smp 2 -m 2500 -accel "$acceleration" \
    -kernel "$root/vmlinuz" -initrd "$root/initrd.img" \
    -append 'root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet' \
    -drive file=/disk,format=raw,if=virtio,cache=unsafe \
    -netdev tap,id=net,ifname=tap0,script=no,downscript=no -device "virtio-net-pci,netdev=net,mac=$mac"
