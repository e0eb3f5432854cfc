// Package reconcile repairs differences between Docker's endpoints, WorkloadEndpoints, IPAM's allocations, and this host's
// interfaces and published ports, which remain after something was killed, restarted or unavailable. Docker's list of
// endpoints decides what exists. Nothing is changed unless the engine answers, and only differences that two comparisons
// found are repaired.
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
	"calico-lab/docker-driver/trigger"
	"calico-lab/docker-driver/workload"
)

// Engine is the part of Docker's API that is used.
type Engine interface {
	Endpoints(ctx context.Context, driver string) (map[string]engine.Endpoint, []string, error)
}

// Endpoints lists this node's WorkloadEndpoints.
type Endpoints interface {
	ListNode(ctx context.Context) ([]libapi.WorkloadEndpoint, error)
}

// Network is the part of the network driver that is used.
type Network interface {
	CreateEndpoint(ctx context.Context, r plugin.CreateEndpointRequest) (plugin.CreateEndpointResponse, error)
	DeleteNetwork(ctx context.Context, r plugin.NetworkRequest) (plugin.Empty, error)
}

// IPAM is the part of the IPAM driver that is used.
type IPAM interface {
	// Claimed and Starting report whether an allocation or an endpoint may be that of a container that is starting.
	// Docker may not list its endpoint yet.
	Claimed(allocation datastore.Allocation) bool
	Starting(endpointID string) bool
	// ReleaseLeaked releases a leaked allocation, unless it has changed since it was read.
	ReleaseLeaked(ctx context.Context, leaked datastore.Allocation) error
	// RegisteredPools returns the pools that this driver created and with which this host is registered.
	RegisteredPools(ctx context.Context) ([]netip.Prefix, error)
	UnregisterHost(ctx context.Context, cidr netip.Prefix) error
}

// Allocations lists a node's allocations, and the handles of all nodes with the prefix that have no address. It deletes such
// handles.
type Allocations interface {
	Allocations(ctx context.Context, node, prefix string) ([]datastore.Allocation, map[string]string, error)
	RemoveHandle(ctx context.Context, id, revision string) error
}

// Addresses assigns addresses.
type Addresses interface {
	AssignIP(ctx context.Context, args calico.AssignIPArgs) error
}

// Links are this host's interfaces.
type Links interface {
	List() (map[string]string, error)
	Exists(name string) bool
}

// Ports are this host's published ports.
type Ports interface {
	Published() []string
	Reapply() error
}

// Records are this host's stored networks.
type Records interface {
	NetworkIDs() []string
	UsesPool(cidr netip.Prefix) bool
}

// Reconciler finds differences and repairs them.
type Reconciler struct {
	// Driver is the network driver's name in Docker.
	Driver      string
	Node        string
	Engine      Engine
	Endpoints   Endpoints
	Network     Network
	Remover     ipam.Remover
	IPAM        IPAM
	Allocations Allocations
	Addresses   Addresses
	Links       Links
	Ports       Ports
	Records     Records
	Retry       datastore.Retry
	// RecheckDelay is the pause between the two comparisons. It must be longer than one attempt to assign an address: then a
	// handle that is empty and unchanged in both comparisons is not getting an address, on any host.
	RecheckDelay time.Duration
	// Interval is the pause between reconciliations without a request.
	Interval time.Duration
	// Requested requests a reconciliation.
	Requested trigger.Trigger
	// Done is called after each reconciliation with the number of repairs by kind, or the error.
	Done func(repaired map[string]int, err error)
	Log  *slog.Logger

	// recheckSoon means that the last comparison found allocations of starting containers, which may turn out to be
	// leaked, or differences that were not confirmed.
	recheckSoon bool
}

// RecreatedEndpoint is the kind of repair that stores a missing WorkloadEndpoint again. Its labels have to be set
// afterwards.
const RecreatedEndpoint = "recreated endpoint"

// Run reconciles on request, at the interval, and again after a failure, until the context ends.
func (r *Reconciler) Run(ctx context.Context) {
	wait, failing := r.Interval, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.Requested:
		case <-time.After(wait):
		}
		repaired, err := r.Once(ctx)
		r.Done(repaired, err)
		switch {
		case err == nil && r.recheckSoon:
			wait = min(r.RecheckDelay, r.Interval)
		case err == nil:
			wait = r.Interval
		case !failing:
			r.Log.Warn("reconciliation failed", "error", err)
			wait = min(r.RecheckDelay, r.Interval)
		default:
			r.Log.Debug("reconciliation still fails", "error", err)
			wait = min(2*wait, r.Interval)
		}
		failing = err != nil
	}
}

// Once compares twice and repairs the differences that both comparisons found. It returns the number of repairs by kind.
func (r *Reconciler) Once(ctx context.Context) (map[string]int, error) {
	// Published ports depend on the store only.
	if err := r.Ports.Reapply(); err != nil {
		r.Log.Error("rules of published ports not written", "error", err)
	}
	first, err := r.Compare(ctx)
	if err != nil {
		return nil, err
	}
	r.recheckSoon = first.Starting > 0
	if first.count() == 0 {
		return nil, nil
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(r.RecheckDelay):
	}
	second, err := r.Compare(ctx)
	if err != nil {
		return nil, err
	}
	seen := second.count()
	confirmed := second.intersect(first)
	// A difference that only the second comparison found was possibly an allocation of a starting container before.
	r.recheckSoon = second.Starting > 0 || confirmed.count() < seen
	return r.repair(ctx, confirmed)
}

// Differences are the differences of one comparison.
type Differences struct {
	// Endpoints are this node's WorkloadEndpoints that Docker does not have, by endpoint ID.
	Endpoints map[string]libapi.WorkloadEndpoint
	// Allocations are this driver's allocations on this node that no endpoint of Docker has, by address.
	Allocations map[netip.Addr]datastore.Allocation
	// Links are this driver's interfaces without an endpoint in Docker: names by endpoint ID.
	Links map[string]string
	// Published are the IDs of endpoints with published ports that Docker does not have.
	Published map[string]bool
	// Networks are the IDs of stored networks that Docker does not have.
	Networks map[string]bool
	// Pools are the pools that this driver created, with which this host is registered, and that no network of this
	// host uses.
	Pools map[netip.Prefix]bool
	// NotStored are Docker's endpoints without a WorkloadEndpoint, by ID.
	NotStored map[string]engine.Endpoint
	// Unallocated are addresses of Docker's endpoints that are not allocated in IPAM.
	Unallocated map[netip.Addr]bool
	// Handles are this driver's handles without an address, of all nodes: revisions by ID.
	Handles map[string]string
	// Starting is the number of allocations of starting containers, which are no differences.
	Starting int
}

func (d Differences) count() int {
	return len(d.Endpoints) + len(d.Allocations) + len(d.Links) + len(d.Published) + len(d.Networks) + len(d.Pools) +
		len(d.NotStored) + len(d.Unallocated) + len(d.Handles)
}

// intersect keeps the differences that the earlier comparison found too.
func (d Differences) intersect(earlier Differences) Differences {
	keep(d.Endpoints, func(id string, _ libapi.WorkloadEndpoint) bool { return has(earlier.Endpoints, id) })
	keep(d.Allocations, func(address netip.Addr, a datastore.Allocation) bool {
		return earlier.Allocations[address].Handle == a.Handle
	})
	keep(d.Links, func(id, _ string) bool { return has(earlier.Links, id) })
	keep(d.Published, func(id string, _ bool) bool { return has(earlier.Published, id) })
	keep(d.Networks, func(id string, _ bool) bool { return has(earlier.Networks, id) })
	keep(d.Pools, func(cidr netip.Prefix, _ bool) bool { return has(earlier.Pools, cidr) })
	keep(d.NotStored, func(id string, _ engine.Endpoint) bool { return has(earlier.NotStored, id) })
	keep(d.Unallocated, func(address netip.Addr, _ bool) bool { return has(earlier.Unallocated, address) })
	keep(d.Handles, func(id, revision string) bool { return earlier.Handles[id] == revision })
	return d
}

func keep[K comparable, V any](all map[K]V, wanted func(K, V) bool) {
	maps.DeleteFunc(all, func(key K, value V) bool { return !wanted(key, value) })
}

func has[K comparable, V any](all map[K]V, key K) bool {
	_, found := all[key]
	return found
}

// Compare finds differences. It reads the datastore before Docker, so that a resource that is created in between does not
// count as a difference.
func (r *Reconciler) Compare(ctx context.Context) (Differences, error) {
	var stored []libapi.WorkloadEndpoint
	var allocations []datastore.Allocation
	var registered []netip.Prefix
	var handles map[string]string
	none := Differences{}
	err := r.Retry.Do(ctx, "list this host's endpoints and addresses", func(ctx context.Context) (err error) {
		if stored, err = r.Endpoints.ListNode(ctx); err != nil {
			return err
		}
		if allocations, handles, err = r.Allocations.Allocations(ctx, r.Node, ipam.HandlePrefix); err != nil {
			return err
		}
		registered, err = r.IPAM.RegisteredPools(ctx)
		return err
	})
	if err != nil {
		return none, err
	}
	links, err := r.Links.List()
	if err != nil {
		return none, err
	}
	known, published := r.Records.NetworkIDs(), r.Ports.Published()
	docker, networks, err := r.Engine.Endpoints(ctx, r.Driver)
	if err != nil {
		return none, err
	}
	found := r.compare(stored, allocations, links, known, docker, networks)
	for _, cidr := range registered {
		// If a network of Docker's is not stored, its pools are unknown.
		allStored := !slices.ContainsFunc(networks, func(id string) bool { return !slices.Contains(known, id) })
		if allStored && !r.Records.UsesPool(cidr) {
			found.Pools[cidr] = true
		}
	}
	for _, id := range published {
		if !has(docker, id) && !r.IPAM.Starting(id) {
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
		NotStored:   map[string]engine.Endpoint{},
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
		case r.IPAM.Claimed(allocation):
			found.Starting++
		default:
			found.Allocations[allocation.Address] = allocation
		}
	}
	isStored := map[string]bool{}
	for _, endpoint := range stored {
		id := endpoint.Spec.Endpoint
		isStored[id] = true
		if !has(docker, id) && !r.IPAM.Starting(id) {
			found.Endpoints[id] = endpoint
		}
	}
	for id, endpoint := range docker {
		// Without an interface on this host the container is either starting or stopped.
		if !isStored[id] && r.Links.Exists(workload.HostInterface(id)) {
			found.NotStored[id] = endpoint
		}
	}
	for id, name := range links {
		if !has(docker, id) && !r.IPAM.Starting(id) {
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

// repair makes the datastore and this host agree with Docker. After a failure it continues, and returns the last error.
func (r *Reconciler) repair(ctx context.Context, found Differences) (map[string]int, error) {
	repaired := map[string]int{}
	var failed error
	do := func(kind string, subject any, run func(context.Context) error) {
		step := "reconcile: " + kind + " " + fmt.Sprint(subject)
		err := r.Retry.Do(ctx, step, run)
		switch {
		case errors.Is(err, ipam.ErrInUse):
			r.Log.Info("not repaired, because it is in use", "kind", kind, "subject", subject, "reason", err)
			return
		case err != nil:
			failed = err
			r.Log.Error("repair failed", "error", err)
			return
		}
		repaired[kind]++
		r.Log.Info("repaired", "kind", kind, "subject", subject)
	}
	for id := range found.Endpoints {
		do("removed endpoint", id, func(ctx context.Context) error { return r.remove(ctx, id) })
	}
	for id, name := range found.Links {
		do("removed interface", name, func(ctx context.Context) error { return r.remove(ctx, id) })
	}
	for id := range found.Published {
		do("unpublished ports", id, func(ctx context.Context) error { return r.remove(ctx, id) })
	}
	for address, allocation := range found.Allocations {
		do("released address", address, func(ctx context.Context) error { return r.IPAM.ReleaseLeaked(ctx, allocation) })
	}
	for id, revision := range found.Handles {
		do("removed handle", id, func(ctx context.Context) error {
			return r.Allocations.RemoveHandle(ctx, id, revision)
		})
	}
	for id := range found.Networks {
		do("removed network record", id, func(ctx context.Context) error {
			_, err := r.Network.DeleteNetwork(ctx, plugin.NetworkRequest{NetworkID: id})
			return err
		})
	}
	for cidr := range found.Pools {
		do("unregistered pool", cidr, func(ctx context.Context) error { return r.IPAM.UnregisterHost(ctx, cidr) })
	}
	// Addresses come before endpoints, because CreateEndpoint binds only addresses that are allocated for this host.
	for address := range found.Unallocated {
		do("reallocated address", address, func(ctx context.Context) error {
			handle := ipam.NewHandle()
			err := r.Addresses.AssignIP(ctx, calico.AssignIPArgs{
				IP: cnet.MustParseIP(address.String()), HandleID: &handle, Hostname: r.Node,
				Attrs: ipam.Attributes(r.Node), IntendedUse: v3.IPPoolAllowedUseWorkload,
			})
			if datastore.IsAlreadyExists(err) {
				return fmt.Errorf("a container of this host has address %s, which is allocated to another owner: "+
					"remove one of the two containers (%w)", address, err)
			}
			return err
		})
	}
	for id, endpoint := range found.NotStored {
		do(RecreatedEndpoint, id, func(ctx context.Context) error {
			_, err := r.Network.CreateEndpoint(ctx, plugin.CreateEndpointRequest{
				NetworkID: endpoint.NetworkID, EndpointID: id, Interface: &plugin.Interface{
					Address: endpoint.IPv4Address, AddressIPv6: endpoint.IPv6Address, MacAddress: endpoint.MacAddress,
				},
			})
			return err
		})
	}
	return repaired, failed
}

// remove removes the endpoint, unless a container has started with it since the comparisons.
func (r *Reconciler) remove(ctx context.Context, endpointID string) error {
	if r.IPAM.Starting(endpointID) {
		return fmt.Errorf("%w: a container is starting with endpoint %s", ipam.ErrInUse, endpointID)
	}
	return r.Remover.Remove(ctx, endpointID)
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
