// Package link creates and removes the veth pairs between this host and its containers. After Create, the host interface
// answers ARP for the container's next hop, also when Felix has not configured it yet. Remove is idempotent.
package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// alias is the prefix of the alias of this driver's interfaces; the endpoint ID follows. `ip link` shows it.
const alias = "calico-docker-driver "

// hostMAC is the MAC address of every host interface. Because it is fixed, a container's neighbour entry for its next hop
// stays valid when the interface is recreated. Calico's own plugins use the same address.
var hostMAC = net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}

// Pair describes a veth pair.
type Pair struct {
	EndpointID string
	// Host and Peer are the interfaces' names. The engine moves the peer into the container and renames it.
	Host, Peer string
	// MAC of the peer.
	MAC net.HardwareAddr
	// MTU of both interfaces.
	MTU int
	// Addresses of the container, for this host's routes.
	Addresses []netip.Addr
	// NextHopIPv6 is the link-local next hop of the container's IPv6 routes.
	NextHopIPv6 netip.Addr
}

// Host is the network namespace of the driver.
type Host struct{}

// Create creates the pair. It replaces a pair that an interrupted call left, and removes the pair if it fails.
func (h Host) Create(pair Pair) error {
	if err := h.Remove(pair.Host); err != nil {
		return err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = pair.Host
	attributes.HardwareAddr = hostMAC
	attributes.MTU = pair.MTU
	veth := &netlink.Veth{
		LinkAttrs:        attributes,
		PeerName:         pair.Peer,
		PeerHardwareAddr: pair.MAC,
		PeerMTU:          uint32(pair.MTU),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("create the veth pair %s and %s: %w", pair.Host, pair.Peer, err)
	}
	if err := h.prepare(pair, veth); err != nil {
		return errors.Join(err, h.Remove(pair.Host))
	}
	return nil
}

// prepare configures the host interface as Felix does, so that a container that starts while Felix is down or busy has a
// next hop as soon as the policy allows its packets.
func (h Host) prepare(pair Pair, veth *netlink.Veth) error {
	if err := netlink.LinkSetAlias(veth, alias+pair.EndpointID); err != nil {
		return fmt.Errorf("set the alias of %s: %w", pair.Host, err)
	}
	settings := map[string]string{
		// No interface has the next hop's address, 169.254.1.1: the host answers ARP for it, without the default delay.
		"net/ipv4/conf/" + pair.Host + "/proxy_arp":    "1",
		"net/ipv4/neigh/" + pair.Host + "/proxy_delay": "0",
		"net/ipv4/conf/" + pair.Host + "/forwarding":   "1",
		// For published ports on 127.0.0.1 of the host.
		"net/ipv4/conf/" + pair.Host + "/route_localnet": "1",
	}
	if pair.NextHopIPv6.IsValid() {
		settings["net/ipv6/conf/"+pair.Host+"/disable_ipv6"] = "0"
		settings["net/ipv6/conf/"+pair.Host+"/forwarding"] = "1"
		settings["net/ipv6/conf/"+pair.Host+"/accept_dad"] = "0"
	}
	for name, value := range settings {
		if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644); err != nil {
			return fmt.Errorf("set %s to %s: %w", name, value, err)
		}
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return fmt.Errorf("set %s up: %w", pair.Host, err)
	}
	if pair.NextHopIPv6.IsValid() {
		address := &netlink.Addr{
			IPNet: network(pair.NextHopIPv6), Flags: unix.IFA_F_NODAD, Scope: unix.RT_SCOPE_LINK,
		}
		if err := netlink.AddrReplace(veth, address); err != nil {
			return fmt.Errorf("add the next hop's address to %s, %s: %w", pair.Host, pair.NextHopIPv6, err)
		}
	}
	for _, address := range pair.Addresses {
		route := &netlink.Route{LinkIndex: veth.Index, Scope: netlink.SCOPE_LINK, Dst: network(address)}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("add the route of %s to %s: %w", address, pair.Host, err)
		}
	}
	return nil
}

func network(address netip.Addr) *net.IPNet {
	return &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(address.BitLen(), address.BitLen())}
}

// Remove deletes the host interface and with it its peer. A missing interface is no error.
func (Host) Remove(name string) error {
	found, err := netlink.LinkByName(name)
	if absent(err) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(found)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove interface %s: %w", name, err)
	}
	return nil
}

// Exists reports whether the host has the interface.
func (Host) Exists(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

// List returns the names of this driver's interfaces by endpoint ID.
func (Host) List() (map[string]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list this host's interfaces: %w", err)
	}
	owned := map[string]string{}
	for _, each := range links {
		if id, ours := strings.CutPrefix(each.Attrs().Alias, alias); ours {
			owned[id] = each.Attrs().Name
		}
	}
	return owned, nil
}

func absent(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}
