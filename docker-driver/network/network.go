// Package network implements Docker's network driver. A network is a set of Calico pools, an endpoint is a WorkloadEndpoint,
// and Join creates a veth pair with routes through the host. Every call is idempotent, removing what does not exist is no
// error, and a call that fails removes what it has created.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// PoolLabel is the label that a pool's profile applies to every endpoint of the pool.
const PoolLabel = "org.projectcalico.pool"

// createdBy is the annotation of profiles that this driver created. It deletes no other profiles.
const createdBy = "org.projectcalico.docker/made-by"

// Profiles is the part of Calico's Profile client that the driver uses.
type Profiles interface {
	Create(ctx context.Context, profile *v3.Profile, opts options.SetOptions) (*v3.Profile, error)
	Delete(ctx context.Context, name string, opts options.DeleteOptions) (*v3.Profile, error)
	Get(ctx context.Context, name string, opts options.GetOptions) (*v3.Profile, error)
}

// Links creates veth pairs.
type Links interface {
	Create(pair link.Pair) error
}

// Ports publishes containers' ports.
type Ports interface {
	Publish(endpointID string, addresses []netip.Addr, bindings []plugin.PortBinding) error
	Unpublish(endpointID string) error
}

// Driver handles the calls.
type Driver struct {
	IPAM      *ipam.Driver
	Pools     datastore.PoolLister
	Profiles  Profiles
	Endpoints workload.Endpoints
	Remover   workload.Remover
	Links     Links
	Ports     Ports
	Store     *store.Store
	// DefaultMTU returns the MTU of networks that were created without one.
	DefaultMTU func() int
	// StartRetry is for calls that the start of a container waits for, CleanupRetry for calls that remove something.
	StartRetry, CleanupRetry datastore.Retry
	Log                      *slog.Logger
}

// Calls returns the calls of the network driver.
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

// GetCapabilities returns local scope, because networks are created on each host without a cluster store, and global
// connectivity, because containers reach each other across hosts.
func (d *Driver) GetCapabilities(context.Context, plugin.Empty) (plugin.NetworkCapabilities, error) {
	return plugin.NetworkCapabilities{Scope: "local", ConnectivityScope: "global", GwAllocChecker: true}, nil
}

// GwAllocCheck tells the engine to allocate no gateway address.
func (d *Driver) GwAllocCheck(context.Context, plugin.Empty) (plugin.GwAllocCheckResponse, error) {
	return plugin.GwAllocCheckResponse{SkipIPv4: true, SkipIPv6: true}, nil
}

// AllocateNetwork is called by swarm managers only.
func (d *Driver) AllocateNetwork(context.Context, plugin.NetworkRequest) (plugin.Empty, error) {
	return plugin.Empty{}, errors.New("a Calico network has local scope: create it on every host, not on a swarm")
}

func (d *Driver) ignore(context.Context, plugin.Empty) (plugin.Empty, error) {
	return plugin.Empty{}, nil
}

// CreateNetwork stores the network with its pools, and creates the pools' profiles.
func (d *Driver) CreateNetwork(ctx context.Context, r plugin.CreateNetworkRequest) (plugin.Empty, error) {
	var none plugin.Empty
	mtu, err := checkOptions(r.Options)
	if err != nil {
		return none, err
	}
	var pools datastore.Pools
	err = d.StartRetry.Do(ctx, "look up the network's pools", func(ctx context.Context) (err error) {
		pools, err = datastore.EnabledPools(ctx, d.Pools)
		return err
	})
	if err != nil {
		return none, err
	}
	network := store.Network{MTU: mtu}
	if network.Pools, err = selectPools(pools, slices.Concat(r.IPv4Data, r.IPv6Data)); err != nil {
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
		d.IPAM.NetworkCreated(pool.CIDR)
	}
	return none, nil
}

// selectPools returns the pools of a CreateNetwork call.
func selectPools(pools datastore.Pools, data []plugin.PoolData) (datastore.Pools, error) {
	var all datastore.Pools
	for _, each := range data {
		if each.AddressSpace != ipam.LocalSpace && each.AddressSpace != ipam.GlobalSpace {
			return nil, errors.New("a Calico network needs Calico's IPAM driver: add --ipam-driver calico-ipam")
		}
		if len(each.AuxAddresses) > 0 {
			return nil, errors.New("--aux-address: not supported by a Calico network, because all hosts share its pool; " +
				"reserve addresses with an IPReservation (calicoctl create -f)")
		}
		pool, err := pools.WithCIDR(each.Pool)
		if err != nil {
			return nil, err
		}
		all = append(all, pool)
	}
	return all, nil
}

// DeleteNetwork deletes the network's record and the profiles that no endpoint of any host uses.
func (d *Driver) DeleteNetwork(ctx context.Context, r plugin.NetworkRequest) (plugin.Empty, error) {
	network, known := d.Store.Network(r.NetworkID)
	if !known {
		return plugin.Empty{}, nil
	}
	if err := d.Store.DeleteNetwork(r.NetworkID); err != nil {
		return plugin.Empty{}, err
	}
	for _, pool := range network.Pools {
		d.IPAM.NetworkDeleted(pool.CIDR)
		// A failure does not fail the call, because Docker has deleted the network and an unused profile has no effect.
		if err := d.deleteUnusedProfile(ctx, pool); err != nil {
			d.Log.Warn("profile of the pool not deleted", "profile", pool.Name, "error", err)
		}
		// Engines call ReleasePool before DeleteNetwork, when the network is still stored.
		if d.Store.UsesPool(pool.CIDR) {
			continue
		}
		if err := d.IPAM.UnregisterHost(ctx, pool.CIDR); err != nil {
			d.Log.Warn("host not unregistered from the pool; the next reconciliation retries it", "pool", pool, "error", err)
		}
	}
	return plugin.Empty{}, nil
}

// CreateEndpoint binds the addresses to the endpoint, and stores the WorkloadEndpoint with the interface's MAC address.
func (d *Driver) CreateEndpoint(
	ctx context.Context, r plugin.CreateEndpointRequest,
) (plugin.CreateEndpointResponse, error) {
	var none plugin.CreateEndpointResponse
	if r.Interface == nil {
		return none, fmt.Errorf("endpoint %s has no address", r.EndpointID)
	}
	addresses, err := addressesOf(*r.Interface)
	if err != nil {
		return none, fmt.Errorf("endpoint %s: %w", r.EndpointID, err)
	}
	unlimited := ctx
	ctx, cancel := d.StartRetry.Context(unlimited)
	defer cancel()
	network, err := d.network(ctx, r.NetworkID, addresses)
	if err != nil {
		return none, err
	}
	added := plugin.Interface{}
	mac := r.Interface.MacAddress
	if mac == "" {
		mac = hardwareAddress(addresses[0]).String()
		added.MacAddress = mac
	}
	unlock, err := d.IPAM.BindAddresses(ctx, r.EndpointID, addresses)
	if err != nil {
		return none, err
	}
	defer unlock()
	used := poolsOf(network.Pools, addresses)
	profiles := make([]string, len(used))
	for i, pool := range used {
		profiles[i] = pool.Name
	}
	endpoint := d.Endpoints.New(r.EndpointID, mac, addresses, profiles)
	err = d.StartRetry.Do(ctx, "store the container's WorkloadEndpoint", func(ctx context.Context) error {
		return d.Endpoints.Put(ctx, endpoint)
	})
	if err != nil {
		return none, errors.Join(err, d.Remover.Delete(unlimited, r.EndpointID))
	}
	// The profile is created after the endpoint, because DeleteNetwork on another host looks for endpoints after it has
	// deleted the profile: one of the two calls sees the other's change.
	for _, pool := range used {
		if err := d.ensureProfile(ctx, pool); err != nil {
			return none, errors.Join(err, d.Remover.Delete(unlimited, r.EndpointID))
		}
	}
	return plugin.CreateEndpointResponse{Interface: &added}, nil
}

// network returns the network's record. If it is missing, for example because the state folder was removed, network rebuilds
// it from the pools of the endpoints' addresses.
func (d *Driver) network(ctx context.Context, id string, addresses []netip.Addr) (store.Network, error) {
	network, known := d.Store.Network(id)
	missing := slices.DeleteFunc(slices.Clone(addresses), func(address netip.Addr) bool {
		return slices.ContainsFunc(network.Pools, func(pool datastore.Pool) bool { return pool.CIDR.Contains(address) })
	})
	if known && len(missing) == 0 {
		return network, nil
	}
	var enabled datastore.Pools
	err := d.StartRetry.Do(ctx, "look up the pools of a network without a record", func(ctx context.Context) (err error) {
		enabled, err = datastore.EnabledPools(ctx, d.Pools)
		return err
	})
	if err != nil {
		return network, err
	}
	network.Pools = slices.Clone(network.Pools)
	for _, address := range missing {
		pool, err := enabled.Containing(address)
		if err != nil {
			return network, err
		}
		if !slices.Contains(network.Pools, pool) {
			network.Pools = append(network.Pools, pool)
		}
	}
	d.Log.Warn("the record of a network is missing and is rebuilt from its pools; its options, such as the MTU, are lost",
		"network", id, "pools", network.Pools)
	return d.Store.PutNetwork(id, network)
}

// EndpointOperInfo returns the endpoint's node and interface. Engines call it several times for each start of a
// container, so it reads nothing from the datastore or the host.
func (d *Driver) EndpointOperInfo(_ context.Context, r plugin.EndpointRequest) (plugin.EndpointInfoResponse, error) {
	return plugin.EndpointInfoResponse{Value: map[string]any{
		"org.projectcalico.node":      d.Endpoints.Node,
		"org.projectcalico.interface": workload.HostInterface(r.EndpointID),
	}}, nil
}

// DeleteEndpoint removes the endpoint from the datastore and, if Leave was not called, from this host.
func (d *Driver) DeleteEndpoint(ctx context.Context, r plugin.EndpointRequest) (plugin.Empty, error) {
	d.IPAM.RemoveClaims(r.EndpointID)
	return plugin.Empty{}, d.Remover.Remove(ctx, r.EndpointID)
}

// Join creates the veth pair. The response contains the configuration of the container's interface.
func (d *Driver) Join(ctx context.Context, r plugin.JoinRequest) (plugin.JoinResponse, error) {
	var none plugin.JoinResponse
	ctx, cancel := d.StartRetry.Context(ctx)
	defer cancel()
	endpoint, err := d.endpoint(ctx, r.EndpointID)
	if err != nil {
		return none, err
	}
	addresses := workload.Addresses(endpoint)
	bound, unlock := d.IPAM.LockAddresses(r.EndpointID, addresses)
	defer unlock()
	if !bound {
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
	response, nextHopIPv6, err := joinResponse(network, addresses)
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

// endpoint reads the WorkloadEndpoint.
func (d *Driver) endpoint(ctx context.Context, endpointID string) (*libapi.WorkloadEndpoint, error) {
	var endpoint *libapi.WorkloadEndpoint
	err := d.StartRetry.Do(ctx, "read the container's WorkloadEndpoint", func(ctx context.Context) (err error) {
		endpoint, err = d.Endpoints.Get(ctx, endpointID)
		return err
	})
	return endpoint, err
}

// Leave removes the published ports and the veth pair.
func (d *Driver) Leave(_ context.Context, r plugin.EndpointRequest) (plugin.Empty, error) {
	return plugin.Empty{}, d.Remover.Detach(r.EndpointID)
}

// ProgramExternalConnectivity publishes the container's ports. Engines call it for the network of the container's default
// route.
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
	return plugin.Empty{}, d.Ports.Publish(r.EndpointID, workload.Addresses(endpoint), r.Options.PortMap)
}

// RevokeExternalConnectivity removes the published ports.
func (d *Driver) RevokeExternalConnectivity(_ context.Context, r plugin.EndpointRequest) (plugin.Empty, error) {
	return plugin.Empty{}, d.Ports.Unpublish(r.EndpointID)
}

// ensureProfile creates the pool's profile if it does not exist. It allows all traffic of endpoints that no policy
// selects. An existing profile is not changed, because it may be the operator's.
func (d *Driver) ensureProfile(ctx context.Context, pool datastore.Pool) error {
	return d.StartRetry.Do(ctx, "create the profile of pool "+pool.Name, func(ctx context.Context) error {
		_, err := d.Profiles.Get(ctx, pool.Name, options.GetOptions{})
		if !datastore.IsNotFound(err) {
			return err
		}
		_, err = d.Profiles.Create(ctx, profile(pool), options.SetOptions{})
		if datastore.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
}

func profile(pool datastore.Pool) *v3.Profile {
	return &v3.Profile{
		ObjectMeta: metav1.ObjectMeta{
			Name: pool.Name, Annotations: map[string]string{createdBy: "calico-docker-driver"},
		},
		Spec: v3.ProfileSpec{
			Ingress:       []v3.Rule{{Action: v3.Allow}},
			Egress:        []v3.Rule{{Action: v3.Allow}},
			LabelsToApply: map[string]string{PoolLabel: pool.Name},
		},
	}
}

// deleteUnusedProfile deletes the pool's profile, unless a network of this host or an endpoint of any host uses it, or this
// driver did not create it.
func (d *Driver) deleteUnusedProfile(ctx context.Context, pool datastore.Pool) error {
	if d.Store.UsesPool(pool.CIDR) {
		return nil
	}
	var used bool
	checkUsed := func(ctx context.Context) (err error) {
		used, err = d.Endpoints.UseProfile(ctx, pool.Name)
		return err
	}
	if err := d.CleanupRetry.Do(ctx, "look for endpoints of pool "+pool.Name, checkUsed); err != nil || used {
		return err
	}
	err := d.CleanupRetry.Do(ctx, "delete the profile of pool "+pool.Name, func(ctx context.Context) error {
		profile, err := d.Profiles.Get(ctx, pool.Name, options.GetOptions{})
		if err == nil && profile.Annotations[createdBy] != "" {
			_, err = d.Profiles.Delete(ctx, pool.Name, options.DeleteOptions{})
		}
		if datastore.IsNotFound(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := d.CleanupRetry.Do(ctx, "look again for endpoints of pool "+pool.Name, checkUsed); err != nil || !used {
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
			return nil, fmt.Errorf("the engine passed the address %q: %w", text, err)
		}
		addresses = append(addresses, prefix.Addr())
	}
	if len(addresses) == 0 {
		return nil, errors.New("the engine passed no address")
	}
	return addresses, nil
}

// poolsOf returns the pools that contain the addresses.
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

// hardwareAddress derives the MAC address from the IP address, as Docker's bridge driver does. A container that starts again
// with the same address then has the MAC address in its peers' neighbour entries.
func hardwareAddress(address netip.Addr) net.HardwareAddr {
	bytes := address.AsSlice()
	return append(net.HardwareAddr{0x02, 0x42}, bytes[len(bytes)-4:]...)
}
