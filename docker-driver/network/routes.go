package network

import (
	"fmt"
	"net/netip"

	"calico-lab/docker-driver/plugin"
	"calico-lab/docker-driver/store"
)

// lastNextHop is the last of 169.254.1.1 to 169.254.1.254.
const lastNextHop = 254

// nextHopIPv4 returns the next hop of the routes in the network's containers. No interface has the address: the host
// interface answers for it (proxy ARP). The first network of a host has Calico's usual 169.254.1.1. Other networks have
// other next hops, because two interfaces of one container cannot have a route to the same next hop.
func nextHopIPv4(index int) (netip.Addr, error) {
	if index+1 > lastNextHop {
		return netip.Addr{}, fmt.Errorf("this host has %d Calico networks, which is the maximum, because each needs a next hop: "+
			"remove an unused one (docker network ls --filter driver=calico)", lastNextHop)
	}
	return netip.AddrFrom4([4]byte{169, 254, 1, byte(index + 1)}), nil
}

// nextHopIPv6 returns the link-local address of the host interface. It is different for each network for the same reason.
func nextHopIPv6(index int) netip.Addr {
	address := netip.MustParseAddr("fe80::169:254:1:0").As16()
	address[15] = byte(index + 1)
	return netip.AddrFrom16(address)
}

// joinResponse returns the container's routes and the IPv6 next hop. The routes are: the next hop on the link, the network's
// pools, so that a container in several networks replies on the interface of the request, and a default route. The engine
// keeps one default route per container. It refuses to connect a container to two networks of one pool.
func joinResponse(network store.Network, addresses []netip.Addr) (plugin.JoinResponse, netip.Addr, error) {
	// Otherwise the engine adds an interface on a bridge of its own for the default route.
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
