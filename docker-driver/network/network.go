// Package network answers Docker's network driver calls: a network is a set of Calico pools, an endpoint is a
// WorkloadEndpoint, and joining one is a veth pair with routes by the host. It owes that every call may be repeated,
// that what is absent counts as removed, and that a call that fails leaves nothing of what it began.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	libapi "github.com/projectcalico/calico/libcalico-go/lib/apis/v3"
	"github.com/projectcalico/calico/libcalico-go/lib/options"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/ipam"
	"calico-lab/docker-driver/link"
	"calico-lab/docker-driver/plugin"
	"calico-lab/docker-driver/store"
	"calico-lab/docker-driver/workload"
)

// PoolLabel is the label that a pool's profile gives to every endpoint of the pool.
const PoolLabel = "org.projectcalico.pool"

// madeBy is the annotation of the profiles that this driver made, and may remove.
const madeBy = "org.projectcalico.docker/made-by"

// Profiles is the part of Calico's Profile client that is needed.
type Profiles interface {
	Create(ctx context.Context, profile *v3.Profile, opts options.SetOptions) (*v3.Profile, error)
	Delete(ctx context.Context, name string, opts options.DeleteOptions) (*v3.Profile, error)
	Get(ctx context.Context, name string, opts options.GetOptions) (*v3.Profile, error)
}

// Links makes and removes veth pairs.
type Links interface {
	Create(pair link.Pair) error
	Remove(name string) error
}

// Publisher lets this host's ports lead to containers.
type Publisher interface {
	Publish(endpointID string, addresses []netip.Addr, bindings []plugin.PortBinding) error
	Withdraw(endpointID string) error
}

// Addresses tells whose an address is.
type Addresses interface {
	// Secure makes sure that the addresses are those of this endpoint and of no other one, until end is called.
	Secure(ctx context.Context, endpointID string, addresses []netip.Addr) (end func(), err error)
	// Joining keeps the addresses until end is called. Unless it is certain, the endpoint may have been removed before.
	Joining(endpointID string, addresses []netip.Addr) (certain bool, end func())
	// Left is told of an endpoint that Docker deletes.
	Left(endpointID string)
}

// Driver answers the calls.
type Driver struct {
	Pools     datastore.PoolLister
	Profiles  Profiles
	Endpoints workload.Endpoints
	Links     Links
	Publisher Publisher
	Store     *store.Store
	// Created and Deleted are told of each pool of a network that came on record, or went from it.
	Created, Deleted func(cidr netip.Prefix)
	// LeavePool is told of a pool that no network of this host is on any more.
	LeavePool func(ctx context.Context, cidr netip.Prefix) error
	// Addresses keep the addresses of endpoints from others.
	Addresses Addresses
	// DefaultMTU is the MTU of networks that were created without one.
	DefaultMTU func() int
	// Take bounds calls that a container's start waits for, Give those that hand something back.
	Take, Give datastore.Patience
	Log        *slog.Logger
}

// Calls are the paths that this driver answers.
func (d *Driver) Calls() plugin.Calls {
	return plugin.Calls{
		"NetworkDriver.GetCapabilities":             plugin.Typed(d.GetCapabilities),
		"NetworkDriver.GwAllocCheck":                plugin.Typed(d.GwAllocCheck),
		"NetworkDriver.AllocateNetwork":             plugin.Typed(d.AllocateNetwork),
		"NetworkDriver.FreeNetwork":                 plugin.Typed(d.ignore),
		"NetworkDriver.CreateNetwork":               plugin.Typed(d.CreateNetwork),
		"NetworkDriver.DeleteNetwork":               plugin.Typed(d.DeleteNetwork),
		"NetworkDriver.CreateEndpoint":              plugin.Typed(d.CreateEndpoint),
		"NetworkDriver.EndpointOperInfo":            plugin.Typed(d.EndpointOperInfo),
		"NetworkDriver.DeleteEndpoint":              plugin.Typed(d.DeleteEndpoint),
		"NetworkDriver.Join":                        plugin.Typed(d.Join),
		"NetworkDriver.Leave":                       plugin.Typed(d.Leave),
		"NetworkDriver.DiscoverNew":                 plugin.Typed(d.ignore),
		"NetworkDriver.DiscoverDelete":              plugin.Typed(d.ignore),
		"NetworkDriver.ProgramExternalConnectivity": plugin.Typed(d.ProgramExternalConnectivity),
		"NetworkDriver.RevokeExternalConnectivity":  plugin.Typed(d.RevokeExternalConnectivity),
	}
}

// GetCapabilities says that networks are made on every host by itself (no cluster store is needed then), and that
// their containers reach each other across hosts.
func (d *Driver) GetCapabilities(context.Context, plugin.Empty) (plugin.NetworkCapabilities, error) {
	return plugin.NetworkCapabilities{Scope: "local", ConnectivityScope: "global", GwAllocChecker: true}, nil
}

// GwAllocCheck keeps engines that ask from taking an address of the pool for a gateway.
func (d *Driver) GwAllocCheck(context.Context, plugin.Empty) (plugin.GwAllocCheckResponse, error) {
	return plugin.GwAllocCheckResponse{SkipIPv4: true, SkipIPv6: true}, nil
}

// AllocateNetwork is asked by swarm managers alone.
func (d *Driver) AllocateNetwork(context.Context, plugin.NetworkRequest) (plugin.Empty, error) {
	return plugin.Empty{}, errors.New("a Calico network has local scope: create it on every host, not on a swarm")
}

func (d *Driver) ignore(context.Context, plugin.Empty) (plugin.Empty, error) {
	return plugin.Empty{}, nil
}

// CreateNetwork records which pools the network is on and sees to their profiles.
func (d *Driver) CreateNetwork(ctx context.Context, r plugin.CreateNetworkRequest) (plugin.Empty, error) {
	var none plugin.Empty
	mtu, err := checkOptions(r.Options)
	if err != nil {
		return none, err
	}
	var pools datastore.Pools
	err = d.Take.Do(ctx, "look up the network's pools", func(ctx context.Context) (err error) {
		pools, err = datastore.EnabledPools(ctx, d.Pools)
		return err
	})
	if err != nil {
		return none, err
	}
	network := store.Network{MTU: mtu}
	if network.Pools, err = chosen(pools, slices.Concat(r.IPv4Data, r.IPv6Data)); err != nil {
		return none, err
	}
	for _, pool := range network.Pools {
		if err := d.ensureProfile(ctx, pool); err != nil {
			return none, err
		}
	}
	network, err = d.Store.PutNetwork(r.NetworkID, network)
	if err != nil {
		return none, err
	}
	if _, err := nextHopIPv4(network.Index); err != nil {
		return none, errors.Join(err, d.Store.DeleteNetwork(r.NetworkID))
	}
	for _, pool := range network.Pools {
		d.Created(pool.CIDR)
	}
	return none, nil
}

func chosen(pools datastore.Pools, data []plugin.PoolData) (datastore.Pools, error) {
	var all datastore.Pools
	for _, each := range data {
		if each.AddressSpace != ipam.LocalSpace && each.AddressSpace != ipam.GlobalSpace {
			return nil, errors.New("a Calico network takes its addresses from Calico: add --ipam-driver calico-ipam")
		}
		if len(each.AuxAddresses) > 0 {
			return nil, errors.New("--aux-address: not for a Calico network, whose pool is shared by all hosts; " +
				"keep addresses free with an IPReservation (calicoctl create -f)")
		}
		pool, err := pools.WithCIDR(each.Pool)
		if err != nil {
			return nil, err
		}
		all = append(all, pool)
	}
	return all, nil
}

// DeleteNetwork forgets the network, and removes the profiles that no endpoint of any host uses any more.
func (d *Driver) DeleteNetwork(ctx context.Context, r plugin.NetworkRequest) (plugin.Empty, error) {
	network, known := d.Store.Network(r.NetworkID)
	if !known {
		return plugin.Empty{}, nil
	}
	if err := d.Store.DeleteNetwork(r.NetworkID); err != nil {
		return plugin.Empty{}, err
	}
	for _, pool := range network.Pools {
		d.Deleted(pool.CIDR)
		// The network is gone for Docker whatever comes of this: what stays is a record that harms nobody.
		if err := d.dropProfile(ctx, pool); err != nil {
			d.Log.Warn("the pool's profile stays in the datastore", "profile", pool.Name, "error", err)
		}
		// Engines release a network's pools before they delete it, when it is still on record.
		if d.Uses(pool.CIDR) {
			continue
		}
		if err := d.LeavePool(ctx, pool.CIDR); err != nil {
			d.Log.Warn("the pool is given up at the next reconciliation", "pool", pool, "error", err)
		}
	}
	return plugin.Empty{}, nil
}

// Known returns the IDs of the networks on record.
func (d *Driver) Known() []string {
	return slices.Collect(maps.Keys(d.Store.Networks()))
}

// Uses tells whether a network on record is on the pool.
func (d *Driver) Uses(cidr netip.Prefix) bool {
	for _, network := range d.Store.Networks() {
		if slices.ContainsFunc(network.Pools, func(pool datastore.Pool) bool { return pool.CIDR == cidr }) {
			return true
		}
	}
	return false
}

// CreateEndpoint stores the WorkloadEndpoint, with the MAC address that the interface is going to have, once it is certain
// that its addresses are no other container's.
func (d *Driver) CreateEndpoint(
	ctx context.Context, r plugin.CreateEndpointRequest,
) (plugin.CreateEndpointResponse, error) {
	var none plugin.CreateEndpointResponse
	if r.Interface == nil {
		return none, fmt.Errorf("endpoint %s came without an address", r.EndpointID)
	}
	addresses, err := addressesOf(*r.Interface)
	if err != nil {
		return none, fmt.Errorf("endpoint %s: %w", r.EndpointID, err)
	}
	whole := ctx
	ctx, cancel := d.Take.Bound(whole)
	defer cancel()
	network, err := d.network(ctx, r.NetworkID, addresses)
	if err != nil {
		return none, err
	}
	answer := plugin.Interface{}
	mac := r.Interface.MacAddress
	if mac == "" {
		mac = hardwareAddress(addresses[0]).String()
		answer.MacAddress = mac
	}
	end, err := d.Addresses.Secure(ctx, r.EndpointID, addresses)
	if err != nil {
		return none, err
	}
	defer end()
	used := poolsOf(network.Pools, addresses)
	profiles := make([]string, len(used))
	for i, pool := range used {
		profiles[i] = pool.Name
	}
	endpoint := d.Endpoints.New(r.EndpointID, mac, addresses, profiles)
	err = d.Take.Do(ctx, "store the container's endpoint", func(ctx context.Context) error {
		return d.Endpoints.Put(ctx, endpoint)
	})
	if err != nil {
		return none, errors.Join(err, d.deleteEndpoint(whole, r.EndpointID))
	}
	// After the endpoint, because DeleteNetwork on another host looks for endpoints after it removed a profile: one of
	// the two then sees what the other did.
	for _, pool := range used {
		if err := d.ensureProfile(ctx, pool); err != nil {
			return none, errors.Join(err, d.deleteEndpoint(whole, r.EndpointID))
		}
	}
	return plugin.CreateEndpointResponse{Interface: &answer}, nil
}

// network returns the network's record. One that is lost, as when the state folder was removed, is made again from
// the pools in which its endpoints' addresses lie, as they come.
func (d *Driver) network(ctx context.Context, id string, addresses []netip.Addr) (store.Network, error) {
	network, known := d.Store.Network(id)
	foreign := slices.DeleteFunc(slices.Clone(addresses), func(address netip.Addr) bool {
		return slices.ContainsFunc(network.Pools, func(pool datastore.Pool) bool { return pool.CIDR.Contains(address) })
	})
	if known && len(foreign) == 0 {
		return network, nil
	}
	var enabled datastore.Pools
	err := d.Take.Do(ctx, "look up the pools of a network that is not on record", func(ctx context.Context) (err error) {
		enabled, err = datastore.EnabledPools(ctx, d.Pools)
		return err
	})
	if err != nil {
		return network, err
	}
	network.Pools = slices.Clone(network.Pools)
	for _, address := range foreign {
		pool, err := enabled.Around(address)
		if err != nil {
			return network, err
		}
		if !slices.Contains(network.Pools, pool) {
			network.Pools = append(network.Pools, pool)
		}
	}
	d.Log.Warn("the record of a network was lost and is made again from its pools; options such as its MTU are the defaults",
		"network", id, "pools", network.Pools)
	return d.Store.PutNetwork(id, network)
}

// EndpointOperInfo tells what an endpoint is on this host. Engines ask several times for every start of a container,
// so nothing outside this process is asked.
func (d *Driver) EndpointOperInfo(_ context.Context, r plugin.EndpointRequest) (plugin.EndpointInfoResponse, error) {
	return plugin.EndpointInfoResponse{Value: map[string]any{
		"org.projectcalico.node":      d.Endpoints.Node,
		"org.projectcalico.interface": workload.HostInterface(r.EndpointID),
	}}, nil
}

// DeleteEndpoint removes the WorkloadEndpoint, and what a Leave that never came would have removed.
func (d *Driver) DeleteEndpoint(ctx context.Context, r plugin.EndpointRequest) (plugin.Empty, error) {
	d.Addresses.Left(r.EndpointID)
	return plugin.Empty{}, d.Remove(ctx, r.EndpointID)
}

// Remove removes all that an endpoint has on this host and in the datastore, but for its addresses.
func (d *Driver) Remove(ctx context.Context, endpointID string) error {
	return errors.Join(d.leave(endpointID), d.deleteEndpoint(ctx, endpointID))
}

func (d *Driver) deleteEndpoint(ctx context.Context, endpointID string) error {
	return d.Give.Do(ctx, "remove the container's endpoint", func(ctx context.Context) error {
		return d.Endpoints.Delete(ctx, endpointID)
	})
}

// Join makes the veth pair and tells the engine what to set up at the container's end.
func (d *Driver) Join(ctx context.Context, r plugin.JoinRequest) (plugin.JoinResponse, error) {
	var none plugin.JoinResponse
	ctx, cancel := d.Take.Bound(ctx)
	defer cancel()
	endpoint, err := d.endpoint(ctx, r.EndpointID)
	if err != nil {
		return none, err
	}
	addresses := workload.Addresses(endpoint)
	certain, end := d.Addresses.Joining(r.EndpointID, addresses)
	defer end()
	if !certain {
		if endpoint, err = d.endpoint(ctx, r.EndpointID); err != nil {
			return none, err
		}
	}
	network, err := d.network(ctx, r.NetworkID, addresses)
	if err != nil {
		return none, err
	}
	mac, err := net.ParseMAC(endpoint.Spec.MAC)
	if err != nil {
		return none, fmt.Errorf("endpoint %s: %w", r.EndpointID, err)
	}
	response, nextHopIPv6, err := route(network, addresses)
	if err != nil {
		return none, err
	}
	pair := link.Pair{
		EndpointID:  r.EndpointID,
		Host:        workload.HostInterface(r.EndpointID),
		Peer:        workload.PeerInterface(r.EndpointID),
		MAC:         mac,
		MTU:         network.MTU,
		Addresses:   addresses,
		NextHopIPv6: nextHopIPv6,
	}
	if pair.MTU == 0 {
		pair.MTU = d.DefaultMTU()
	}
	if err := d.Links.Create(pair); err != nil {
		return none, err
	}
	response.InterfaceName = plugin.InterfaceName{SrcName: pair.Peer, DstPrefix: "eth"}
	return response, nil
}

// endpoint looks the WorkloadEndpoint up.
func (d *Driver) endpoint(ctx context.Context, endpointID string) (*libapi.WorkloadEndpoint, error) {
	var endpoint *libapi.WorkloadEndpoint
	err := d.Take.Do(ctx, "look up the container's endpoint", func(ctx context.Context) (err error) {
		endpoint, err = d.Endpoints.Get(ctx, endpointID)
		return err
	})
	return endpoint, err
}

// Leave removes the veth pair; the container's end goes with it.
func (d *Driver) Leave(_ context.Context, r plugin.EndpointRequest) (plugin.Empty, error) {
	return plugin.Empty{}, d.leave(r.EndpointID)
}

func (d *Driver) leave(endpointID string) error {
	return errors.Join(d.Publisher.Withdraw(endpointID), d.Links.Remove(workload.HostInterface(endpointID)))
}

// ProgramExternalConnectivity publishes the container's ports. Engines ask it of the network that a container has its
// default route by.
func (d *Driver) ProgramExternalConnectivity(
	ctx context.Context, r plugin.ExternalConnectivityRequest,
) (plugin.Empty, error) {
	if len(r.Options.PortMap) == 0 {
		return plugin.Empty{}, nil
	}
	endpoint, err := d.endpoint(ctx, r.EndpointID)
	if err != nil {
		return plugin.Empty{}, err
	}
	return plugin.Empty{}, d.Publisher.Publish(r.EndpointID, workload.Addresses(endpoint), r.Options.PortMap)
}

// RevokeExternalConnectivity takes the published ports back.
func (d *Driver) RevokeExternalConnectivity(_ context.Context, r plugin.EndpointRequest) (plugin.Empty, error) {
	return plugin.Empty{}, d.Publisher.Withdraw(r.EndpointID)
}

// ensureProfile makes the pool's profile when there is none: everything may reach its endpoints and they may reach
// everything, until a policy selects them. One that is there is the operator's and stays as it is.
func (d *Driver) ensureProfile(ctx context.Context, pool datastore.Pool) error {
	return d.Take.Do(ctx, "see to the profile of pool "+pool.Name, func(ctx context.Context) error {
		_, err := d.Profiles.Get(ctx, pool.Name, options.GetOptions{})
		if !datastore.Absent(err) {
			return err
		}
		_, err = d.Profiles.Create(ctx, profile(pool), options.SetOptions{})
		if datastore.Present(err) {
			return nil
		}
		return err
	})
}

func profile(pool datastore.Pool) *v3.Profile {
	return &v3.Profile{
		ObjectMeta: metav1.ObjectMeta{
			Name: pool.Name, Annotations: map[string]string{madeBy: "calico-docker-driver"},
		},
		Spec: v3.ProfileSpec{
			Ingress:       []v3.Rule{{Action: v3.Allow}},
			Egress:        []v3.Rule{{Action: v3.Allow}},
			LabelsToApply: map[string]string{PoolLabel: pool.Name},
		},
	}
}

// dropProfile removes the pool's profile unless a network of this host or an endpoint of any host needs it, or
// somebody else made it.
func (d *Driver) dropProfile(ctx context.Context, pool datastore.Pool) error {
	if d.Uses(pool.CIDR) {
		return nil
	}
	var used bool
	look := func(ctx context.Context) (err error) {
		used, err = d.Endpoints.WithProfile(ctx, pool.Name)
		return err
	}
	if err := d.Give.Do(ctx, "look for endpoints of pool "+pool.Name, look); err != nil || used {
		return err
	}
	err := d.Give.Do(ctx, "remove the profile of pool "+pool.Name, func(ctx context.Context) error {
		profile, err := d.Profiles.Get(ctx, pool.Name, options.GetOptions{})
		if err == nil && profile.Annotations[madeBy] != "" {
			_, err = d.Profiles.Delete(ctx, pool.Name, options.DeleteOptions{})
		}
		if datastore.Absent(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := d.Give.Do(ctx, "look again for endpoints of pool "+pool.Name, look); err != nil || !used {
		return err
	}
	return d.ensureProfile(ctx, pool)
}

func addressesOf(given plugin.Interface) ([]netip.Addr, error) {
	var addresses []netip.Addr
	for _, text := range []string{given.Address, given.AddressIPv6} {
		if text == "" {
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("the engine gave the address %q: %w", text, err)
		}
		addresses = append(addresses, prefix.Addr())
	}
	if len(addresses) == 0 {
		return nil, errors.New("the engine gave no address")
	}
	return addresses, nil
}

func poolsOf(pools datastore.Pools, addresses []netip.Addr) datastore.Pools {
	var used datastore.Pools
	for _, pool := range pools {
		for _, address := range addresses {
			if pool.CIDR.Contains(address) && !slices.Contains(used, pool) {
				used = append(used, pool)
			}
		}
	}
	return used
}

// hardwareAddress follows from the address, as on Docker's own bridge: a container that comes back with its address
// has the MAC address that its peers remember.
func hardwareAddress(address netip.Addr) net.HardwareAddr {
	bytes := address.AsSlice()
	return append(net.HardwareAddr{0x02, 0x42}, bytes[len(bytes)-4:]...)
}
