// Package link makes and removes the veth pairs between this host and its containers. It owes that the host's end
// answers for the container's next hop at once, before Felix has seen it, and that removing may be repeated.
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

// alias marks the interfaces that this driver made; `ip link` shows it with the endpoint's ID behind it.
const alias = "calico-docker-driver "

// hostMAC is the same on every host's end: the kernel then never has to invent one, and a container's neighbour entry
// for its next hop stays right whatever happens to the interface. Calico's own plugins use this address.
var hostMAC = net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}

// Pair describes a veth pair.
type Pair struct {
	EndpointID string
	// Host and Peer are the names of the ends. The engine moves the peer into the container and renames it.
	Host, Peer string
	// MAC of the container's end.
	MAC net.HardwareAddr
	// MTU of both ends.
	MTU int
	// Addresses of the container, for the routes of this host.
	Addresses []netip.Addr
	// NextHopIPv6 is the link-local address that the container has its IPv6 routes by.
	NextHopIPv6 netip.Addr
}

// Host is the network namespace that the driver runs in.
type Host struct{}

// Create makes the pair; one left by an interrupted call is made anew. On an error nothing stays.
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
		return fmt.Errorf("make the veth pair %s and %s: %w", pair.Host, pair.Peer, err)
	}
	if err := h.prepare(pair, veth); err != nil {
		return errors.Join(err, h.Remove(pair.Host))
	}
	return nil
}

// prepare sets up the host's end as Felix will want it, so that a container that starts while Felix is down or busy
// has a next hop as soon as policy lets its packets pass.
func (h Host) prepare(pair Pair, veth *netlink.Veth) error {
	if err := netlink.LinkSetAlias(veth, alias+pair.EndpointID); err != nil {
		return fmt.Errorf("mark %s: %w", pair.Host, err)
	}
	settings := map[string]string{
		// The next hop 169.254.1.1 is nobody's address: the host answers for it, and without the usual delay.
		"net/ipv4/conf/" + pair.Host + "/proxy_arp":    "1",
		"net/ipv4/neigh/" + pair.Host + "/proxy_delay": "0",
		"net/ipv4/conf/" + pair.Host + "/forwarding":   "1",
		// Published ports are reachable by 127.0.0.1 of the host.
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
		return fmt.Errorf("bring %s up: %w", pair.Host, err)
	}
	if pair.NextHopIPv6.IsValid() {
		address := &netlink.Addr{
			IPNet: network(pair.NextHopIPv6), Flags: unix.IFA_F_NODAD, Scope: unix.RT_SCOPE_LINK,
		}
		if err := netlink.AddrReplace(veth, address); err != nil {
			return fmt.Errorf("give %s the next hop %s: %w", pair.Host, pair.NextHopIPv6, err)
		}
	}
	for _, address := range pair.Addresses {
		route := &netlink.Route{LinkIndex: veth.Index, Scope: netlink.SCOPE_LINK, Dst: network(address)}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route %s to %s: %w", address, pair.Host, err)
		}
	}
	return nil
}

func network(address netip.Addr) *net.IPNet {
	return &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(address.BitLen(), address.BitLen())}
}

// Remove deletes the host's end, and with it the other one; an interface that is not there is no error.
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

// Exists tells whether the host has the interface.
func (Host) Exists(name string) bool {
	_, err := netlink.LinkByName(name)
	return err == nil
}

// Owned lists the interfaces that this driver made, by endpoint ID.
func (Host) Owned() (map[string]string, error) {
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
