// Package reconcile brings Docker's endpoints, Calico's WorkloadEndpoints, IPAM's allocations and this host's
// interfaces and published ports together again after something was killed, restarted or out of reach. Docker's word decides what exists.
// It owes caution: nothing is touched unless the engine answered, and unless two looks some time apart agree.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	libapi "github.com/projectcalico/calico/libcalico-go/lib/apis/v3"
	calico "github.com/projectcalico/calico/libcalico-go/lib/ipam"
	cnet "github.com/projectcalico/calico/libcalico-go/lib/net"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/engine"
	"calico-lab/docker-driver/ipam"
	"calico-lab/docker-driver/plugin"
	"calico-lab/docker-driver/workload"
)

// Engine is what is asked of Docker.
type Engine interface {
	Endpoints(ctx context.Context, driver string) (map[string]engine.Endpoint, []string, error)
}

// Endpoints are this node's WorkloadEndpoints.
type Endpoints interface {
	OfNode(ctx context.Context) ([]libapi.WorkloadEndpoint, error)
}

// Network makes and removes what belongs to a network.
type Network interface {
	CreateEndpoint(ctx context.Context, r plugin.CreateEndpointRequest) (plugin.CreateEndpointResponse, error)
	DeleteNetwork(ctx context.Context, r plugin.NetworkRequest) (plugin.Empty, error)
	// Remove removes all that an endpoint has on this host and in the datastore, but for its addresses.
	Remove(ctx context.Context, endpointID string) error
	Known() []string
	Uses(cidr netip.Prefix) bool
}

// Pools are those that this driver made for networks of this host.
type Pools interface {
	HeldPools(ctx context.Context) ([]netip.Prefix, error)
	LeavePool(ctx context.Context, cidr netip.Prefix) error
}

// Allocations lists what IPAM holds for a node, and the handles of any node with the prefix that hold nothing.
type Allocations interface {
	Allocations(ctx context.Context, node, prefix string) ([]datastore.Allocation, map[string]string, error)
	RemoveHandle(ctx context.Context, id, revision string) error
}

// Addresses assigns.
type Addresses interface {
	AssignIP(ctx context.Context, args calico.AssignIPArgs) error
}

// Links are this host's interfaces.
type Links interface {
	Owned() (map[string]string, error)
	Exists(name string) bool
}

// Ports are the published ports of this host.
type Ports interface {
	Published() []string
	Renew() error
}

// Reconciler compares and mends.
type Reconciler struct {
	// Driver is the name under which Docker knows the network driver.
	Driver      string
	Node        string
	Engine      Engine
	Endpoints   Endpoints
	Network     Network
	Pools       Pools
	Allocations Allocations
	Addresses   Addresses
	Links       Links
	Ports       Ports
	// Claimed and Starting tell of allocations and endpoints that a container may be getting, which Docker need not have yet.
	Claimed  func(datastore.Allocation) bool
	Starting func(endpointID string) bool
	// ReleaseLeft releases what was left behind, unless that has changed since it was looked at.
	ReleaseLeft func(ctx context.Context, left datastore.Allocation) error
	Datastore   datastore.Patience
	// Settle is the time between the two looks. It is longer than one try to assign an address may take: a handle that
	// is empty and unchanged in both is not on its way to an address, on whichever host.
	Settle time.Duration
	// Every is the time between reconciliations that nothing asked for.
	Every time.Duration
	// Done is told after each reconciliation what was mended, or why it could not be done.
	Done func(mended map[string]int, err error)
	Log  *slog.Logger

	wanted chan struct{}
	// unsettled tells that the last look saw addresses on their way, which may turn out to be left behind.
	unsettled bool
}

// StoredAgain is what reconciliation calls it when it makes an endpoint that the datastore had lost. Its labels are
// not known to the driver and have to be asked for.
const StoredAgain = "stored endpoint again"

// New makes a reconciler of its parts.
func New(parts Reconciler) *Reconciler {
	parts.wanted = make(chan struct{}, 1)
	return &parts
}

// Ask wants a reconciliation soon; one that is under way counts for the next.
func (r *Reconciler) Ask() {
	select {
	case r.wanted <- struct{}{}:
	default:
	}
}

// Run reconciles when asked, from time to time, and again after it could not, until the context ends.
func (r *Reconciler) Run(ctx context.Context) {
	wait, failing := r.Every, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wanted:
		case <-time.After(wait):
		}
		mended, err := r.Once(ctx)
		r.Done(mended, err)
		switch {
		case err == nil && r.unsettled:
			wait = min(r.Settle, r.Every)
		case err == nil:
			wait = r.Every
		case !failing:
			r.Log.Warn("not reconciled", "error", err)
			wait = min(r.Settle, r.Every)
		default:
			r.Log.Debug("not reconciled yet", "error", err)
			wait = min(2*wait, r.Every)
		}
		failing = err != nil
	}
}

// Once looks twice and mends what both looks found. It returns how many things of each kind were mended.
func (r *Reconciler) Once(ctx context.Context) (map[string]int, error) {
	// The record alone says what these are.
	if err := r.Ports.Renew(); err != nil {
		r.Log.Error("the rules of published ports may not be those of the record", "error", err)
	}
	first, err := r.Look(ctx)
	if err != nil {
		return nil, err
	}
	r.unsettled = first.Underway > 0
	if first.count() == 0 {
		return nil, nil
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(r.Settle):
	}
	second, err := r.Look(ctx)
	if err != nil {
		return nil, err
	}
	seen := second.count()
	agreed := second.also(first)
	// What only the second look found is looked at again soon: it may be something that was on its way before.
	r.unsettled = second.Underway > 0 || agreed.count() < seen
	return r.mend(ctx, agreed)
}

// Differences are what one look found.
type Differences struct {
	// Endpoints of this node that Docker does not have, by ID.
	Endpoints map[string]libapi.WorkloadEndpoint
	// Allocations of this driver on this node that no endpoint of Docker has, by address.
	Allocations map[netip.Addr]datastore.Allocation
	// Links of this driver whose endpoint Docker does not have: names by endpoint ID.
	Links map[string]string
	// Published are the IDs of endpoints with published ports that Docker does not have.
	Published map[string]bool
	// Networks that are on record and that Docker does not have.
	Networks map[string]bool
	// Pools that this driver made and that no network of this host is on.
	Pools map[netip.Prefix]bool
	// Unknown are Docker's endpoints without a WorkloadEndpoint, by ID.
	Unknown map[string]engine.Endpoint
	// Unallocated are addresses of Docker's endpoints that IPAM takes for free.
	Unallocated map[netip.Addr]bool
	// Handles of this driver, on any node, that no address has: revisions by ID.
	Handles map[string]string
	// Underway is how many addresses are on their way to a container, which is no difference.
	Underway int
}

func (d Differences) count() int {
	return len(d.Endpoints) + len(d.Allocations) + len(d.Links) + len(d.Published) + len(d.Networks) + len(d.Pools) +
		len(d.Unknown) + len(d.Unallocated) + len(d.Handles)
}

// also keeps what the earlier look found as well.
func (d Differences) also(earlier Differences) Differences {
	keep(d.Endpoints, func(id string, _ libapi.WorkloadEndpoint) bool { return has(earlier.Endpoints, id) })
	keep(d.Allocations, func(address netip.Addr, a datastore.Allocation) bool {
		return earlier.Allocations[address].Handle == a.Handle
	})
	keep(d.Links, func(id, _ string) bool { return has(earlier.Links, id) })
	keep(d.Published, func(id string, _ bool) bool { return has(earlier.Published, id) })
	keep(d.Networks, func(id string, _ bool) bool { return has(earlier.Networks, id) })
	keep(d.Pools, func(cidr netip.Prefix, _ bool) bool { return has(earlier.Pools, cidr) })
	keep(d.Unknown, func(id string, _ engine.Endpoint) bool { return has(earlier.Unknown, id) })
	keep(d.Unallocated, func(address netip.Addr, _ bool) bool { return has(earlier.Unallocated, address) })
	keep(d.Handles, func(id, revision string) bool { return earlier.Handles[id] == revision })
	return d
}

func keep[K comparable, V any](all map[K]V, wanted func(K, V) bool) {
	maps.DeleteFunc(all, func(key K, value V) bool { return !wanted(key, value) })
}

func has[K comparable, V any](all map[K]V, key K) bool {
	_, there := all[key]
	return there
}

// Look compares. It reads the datastore before it asks Docker, so that what is created in between is not taken for
// left behind.
func (r *Reconciler) Look(ctx context.Context) (Differences, error) {
	var stored []libapi.WorkloadEndpoint
	var allocations []datastore.Allocation
	var held []netip.Prefix
	var handles map[string]string
	none := Differences{}
	err := r.Datastore.Do(ctx, "list this host's endpoints and addresses", func(ctx context.Context) (err error) {
		if stored, err = r.Endpoints.OfNode(ctx); err != nil {
			return err
		}
		if allocations, handles, err = r.Allocations.Allocations(ctx, r.Node, ipam.HandlePrefix); err != nil {
			return err
		}
		held, err = r.Pools.HeldPools(ctx)
		return err
	})
	if err != nil {
		return none, err
	}
	links, err := r.Links.Owned()
	if err != nil {
		return none, err
	}
	known, published := r.Network.Known(), r.Ports.Published()
	docker, networks, err := r.Engine.Endpoints(ctx, r.Driver)
	if err != nil {
		return none, err
	}
	found := r.compare(stored, allocations, links, known, docker, networks)
	for _, cidr := range held {
		// Where the record of a network was lost, nobody knows which pool it is on.
		recorded := !slices.ContainsFunc(networks, func(id string) bool { return !slices.Contains(known, id) })
		if recorded && !r.Network.Uses(cidr) {
			found.Pools[cidr] = true
		}
	}
	for _, id := range published {
		if !has(docker, id) && !r.Starting(id) {
			found.Published[id] = true
		}
	}
	found.Handles = handles
	return found, nil
}

func (r *Reconciler) compare(stored []libapi.WorkloadEndpoint, allocations []datastore.Allocation,
	links map[string]string, known []string, docker map[string]engine.Endpoint, networks []string,
) Differences {
	found := Differences{
		Endpoints:   map[string]libapi.WorkloadEndpoint{},
		Allocations: map[netip.Addr]datastore.Allocation{},
		Links:       map[string]string{},
		Published:   map[string]bool{},
		Networks:    map[string]bool{},
		Pools:       map[netip.Prefix]bool{},
		Unknown:     map[string]engine.Endpoint{},
		Unallocated: map[netip.Addr]bool{},
	}
	used := map[netip.Addr]bool{}
	for _, endpoint := range docker {
		for _, address := range addressesOf(endpoint) {
			used[address] = true
			found.Unallocated[address] = true
		}
	}
	for _, allocation := range allocations {
		delete(found.Unallocated, allocation.Address)
		ours := strings.HasPrefix(allocation.Handle, ipam.HandlePrefix)
		switch {
		case !ours || used[allocation.Address]:
		case r.Claimed(allocation):
			found.Underway++
		default:
			found.Allocations[allocation.Address] = allocation
		}
	}
	recorded := map[string]bool{}
	for _, endpoint := range stored {
		id := endpoint.Spec.Endpoint
		recorded[id] = true
		if !has(docker, id) && !r.Starting(id) {
			found.Endpoints[id] = endpoint
		}
	}
	for id, endpoint := range docker {
		// Without an interface on this host the endpoint is on its way, or of no use to anybody.
		if !recorded[id] && r.Links.Exists(workload.HostInterface(id)) {
			found.Unknown[id] = endpoint
		}
	}
	for id, name := range links {
		if !has(docker, id) && !r.Starting(id) {
			found.Links[id] = name
		}
	}
	for _, id := range known {
		if !slices.Contains(networks, id) {
			found.Networks[id] = true
		}
	}
	return found
}

// mend makes the datastore and this host agree with Docker. It goes on after a failure and returns the last one.
func (r *Reconciler) mend(ctx context.Context, found Differences) (map[string]int, error) {
	mended := map[string]int{}
	var failed error
	do := func(kind string, subject any, run func(context.Context) error) {
		step := "reconcile: " + kind + " " + fmt.Sprint(subject)
		err := r.Datastore.Do(ctx, step, run)
		switch {
		case errors.Is(err, ipam.ErrStays):
			r.Log.Info("looked at", "what", kind, "subject", subject, "answer", err)
			return
		case err != nil:
			failed = err
			r.Log.Error("not mended", "error", err)
			return
		}
		mended[kind]++
		r.Log.Info("mended", "what", kind, "subject", subject)
	}
	for id := range found.Endpoints {
		do("removed endpoint", id, func(ctx context.Context) error { return r.remove(ctx, id) })
	}
	for id, name := range found.Links {
		do("removed interface", name, func(ctx context.Context) error { return r.remove(ctx, id) })
	}
	for id := range found.Published {
		do("withdrew ports", id, func(ctx context.Context) error { return r.remove(ctx, id) })
	}
	for address, allocation := range found.Allocations {
		do("released address", address, func(ctx context.Context) error { return r.ReleaseLeft(ctx, allocation) })
	}
	for id, revision := range found.Handles {
		do("removed handle", id, func(ctx context.Context) error {
			return r.Allocations.RemoveHandle(ctx, id, revision)
		})
	}
	for id := range found.Networks {
		do("forgot network", id, func(ctx context.Context) error {
			_, err := r.Network.DeleteNetwork(ctx, plugin.NetworkRequest{NetworkID: id})
			return err
		})
	}
	for cidr := range found.Pools {
		do("gave up pool", cidr, func(ctx context.Context) error { return r.Pools.LeavePool(ctx, cidr) })
	}
	// Before the endpoints, which are stored again only with addresses that are theirs.
	for address := range found.Unallocated {
		do("allocated address again", address, func(ctx context.Context) error {
			handle := ipam.NewHandle()
			err := r.Addresses.AssignIP(ctx, calico.AssignIPArgs{
				IP: cnet.MustParseIP(address.String()), HandleID: &handle, Hostname: r.Node,
				Attrs: ipam.Attributes(r.Node), IntendedUse: v3.IPPoolAllowedUseWorkload,
			})
			if datastore.Present(err) {
				return fmt.Errorf("a container of this host has address %s, which is allocated to somebody else: "+
					"remove one of the two containers (%w)", address, err)
			}
			return err
		})
	}
	for id, endpoint := range found.Unknown {
		do(StoredAgain, id, func(ctx context.Context) error {
			_, err := r.Network.CreateEndpoint(ctx, plugin.CreateEndpointRequest{
				NetworkID: endpoint.NetworkID, EndpointID: id, Interface: &plugin.Interface{
					Address: endpoint.IPv4Address, AddressIPv6: endpoint.IPv6Address, MacAddress: endpoint.MacAddress,
				},
			})
			return err
		})
	}
	return mended, failed
}

// remove removes what an endpoint has left, unless a container has come to be getting the endpoint since the looks.
func (r *Reconciler) remove(ctx context.Context, endpointID string) error {
	if r.Starting(endpointID) {
		return fmt.Errorf("%w: a container is starting with endpoint %s", ipam.ErrStays, endpointID)
	}
	return r.Network.Remove(ctx, endpointID)
}

func addressesOf(endpoint engine.Endpoint) []netip.Addr {
	var addresses []netip.Addr
	for _, text := range []string{endpoint.IPv4Address, endpoint.IPv6Address} {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			addresses = append(addresses, prefix.Addr())
		}
	}
	return addresses
}
