package network

import (
	"fmt"
	"net/netip"

	"calico-lab/docker-driver/plugin"
	"calico-lab/docker-driver/store"
)

// lastNextHop is the last of 169.254.1.1 to 169.254.1.254.
const lastNextHop = 254

// nextHopIPv4 is the address that containers of the network have their routes by. It is nobody's: the host's end of
// the veth pair answers for it (proxy ARP). The first network of a host has Calico's usual 169.254.1.1; others differ,
// because two interfaces of one container cannot have a route to the same next hop.
func nextHopIPv4(index int) (netip.Addr, error) {
	if index+1 > lastNextHop {
		return netip.Addr{}, fmt.Errorf("this host has %d Calico networks, which is all there are next hops for: "+
			"remove one that is not used (docker network ls --filter driver=calico)", lastNextHop)
	}
	return netip.AddrFrom4([4]byte{169, 254, 1, byte(index + 1)}), nil
}

// nextHopIPv6 is the link-local address that the host's end of the veth pair gets, different for the same reason.
func nextHopIPv6(index int) netip.Addr {
	address := netip.MustParseAddr("fe80::169:254:1:0").As16()
	address[15] = byte(index + 1)
	return netip.AddrFrom16(address)
}

// route says how the container reaches the rest: its next hop on the link, the network's pools by it, so that a
// container in several networks answers each on the interface that it was asked on, and a default route, of which the
// engine keeps one per container. The engine refuses to put a container into two networks of one pool.
func route(network store.Network, addresses []netip.Addr) (plugin.JoinResponse, netip.Addr, error) {
	// Without this the engine would add an interface on a bridge of its own for the default route.
	response := plugin.JoinResponse{DisableGatewayService: true}
	var hop6 netip.Addr
	hop4, err := nextHopIPv4(network.Index)
	if err != nil {
		return response, hop6, err
	}
	for _, address := range addresses {
		hop := hop4
		if address.Is6() {
			hop6 = nextHopIPv6(network.Index)
			hop = hop6
			response.GatewayIPv6 = hop.String()
		} else {
			response.Gateway = hop.String()
		}
		response.StaticRoutes = append(response.StaticRoutes, plugin.StaticRoute{
			Destination: netip.PrefixFrom(hop, hop.BitLen()).String(), RouteType: plugin.RouteConnected,
		})
		for _, pool := range network.Pools {
			if pool.CIDR.Addr().Is4() == address.Is4() {
				response.StaticRoutes = append(response.StaticRoutes, plugin.StaticRoute{
					Destination: pool.CIDR.String(), RouteType: plugin.RouteNextHop, NextHop: hop.String(),
				})
			}
		}
	}
	return response, hop6, nil
}
