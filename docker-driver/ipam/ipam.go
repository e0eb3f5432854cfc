// Package ipam answers Docker's IPAM calls from Calico's own address management. It owes: addresses from the
// network's own pool and no other, every allocation under a handle with this node's name on it, a fixed address
// honoured or refused with the reason, and releases that succeed when there is nothing left to release.
package ipam

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	libapi "github.com/projectcalico/calico/libcalico-go/lib/apis/v3"
	calico "github.com/projectcalico/calico/libcalico-go/lib/ipam"
	cnet "github.com/projectcalico/calico/libcalico-go/lib/net"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/plugin"
	"calico-lab/docker-driver/workload"
)

// HandlePrefix starts the handle of every allocation that this driver makes. The rest is random: Docker asks for an
// address before it tells for which endpoint.
const HandlePrefix = "docker-"

// LocalSpace and GlobalSpace are the address spaces by which the network driver recognises this IPAM driver.
const (
	LocalSpace  = "calico-local"
	GlobalSpace = "calico-global"
)

// Addresses is the part of Calico's IPAM client that is needed.
type Addresses interface {
	AssignIP(ctx context.Context, args calico.AssignIPArgs) error
	AutoAssign(ctx context.Context, args calico.AutoAssignArgs) (*calico.IPAMAssignments, *calico.IPAMAssignments, error)
	ReleaseIPs(ctx context.Context, ips ...calico.ReleaseOptions) ([]cnet.IP, []calico.ReleaseOptions, error)
	GetAssignmentAttributes(ctx context.Context, address cnet.IP) (map[string]string, *string, error)
	IPsByHandle(ctx context.Context, handle string) ([]cnet.IP, error)
	GetUtilization(ctx context.Context, args calico.GetUtilizationArgs) ([]*calico.PoolUtilization, error)
}

// Endpoints tells whom an address belongs to.
type Endpoints interface {
	WithAddress(ctx context.Context, address netip.Addr) (*libapi.WorkloadEndpoint, error)
	OwnWithAddress(ctx context.Context, address netip.Addr) (*libapi.WorkloadEndpoint, error)
}

// ErrStays is why a pool or an address that seemed to be left behind is not given up.
var ErrStays = errors.New("it stays")

// Driver answers the calls.
type Driver struct {
	Node      string
	Pools     Pools
	Addresses Addresses
	Endpoints Endpoints
	// Attached tells whether the host has the interface of that name.
	Attached func(name string) bool
	// Used tells whether a network of this host is on the pool.
	Used func(cidr netip.Prefix) bool
	// Remove removes an endpoint of this host, with its interface and published ports.
	Remove func(ctx context.Context, endpointID string) error
	// Take bounds calls that a container's start waits for, Give those that hand something back.
	Take, Give datastore.Patience
	Log        *slog.Logger
	// Doubt wants a reconciliation, because it is not certain what a call has left.
	Doubt  func()
	Owed   Owed
	claims claims
	turns  turns
	// promises are the pools that networks are being created on.
	promises promises
	// noting lets one pool at a time be taken or given up, so that what is noted on it is what holds on this host.
	noting sync.Mutex
}

// Calls are the paths that this driver answers.
func (d *Driver) Calls() plugin.Calls {
	return plugin.Calls{
		"IpamDriver.GetCapabilities":         plugin.Typed(d.GetCapabilities),
		"IpamDriver.GetDefaultAddressSpaces": plugin.Typed(d.GetDefaultAddressSpaces),
		"IpamDriver.RequestPool":             plugin.Typed(d.RequestPool),
		"IpamDriver.ReleasePool":             plugin.Typed(d.ReleasePool),
		"IpamDriver.RequestAddress":          plugin.Typed(d.RequestAddress),
		"IpamDriver.ReleaseAddress":          plugin.Typed(d.ReleaseAddress),
	}
}

// GetCapabilities asks for no replay: Calico's datastore outlives the engine, and what differs is reconciled.
func (d *Driver) GetCapabilities(context.Context, plugin.Empty) (plugin.IpamCapabilities, error) {
	return plugin.IpamCapabilities{}, nil
}

// GetDefaultAddressSpaces names the spaces; both mean Calico's pools.
func (d *Driver) GetDefaultAddressSpaces(context.Context, plugin.Empty) (plugin.AddressSpaces, error) {
	return plugin.AddressSpaces{LocalDefaultAddressSpace: LocalSpace, GlobalDefaultAddressSpace: GlobalSpace}, nil
}

// RequestPool finds the enabled IPPool that was asked for, or makes it when it was given a block size. Its CIDR is the
// pool's ID, so that no state is needed to know it.
func (d *Driver) RequestPool(ctx context.Context, r plugin.RequestPoolRequest) (plugin.RequestPoolResponse, error) {
	var none plugin.RequestPoolResponse
	if r.SubPool != "" {
		return none, fmt.Errorf("--ip-range %s: a Calico network uses its whole pool; make an IPPool of that range "+
			"and give it as --subnet", r.SubPool)
	}
	pool, err := d.pool(ctx, r)
	if err != nil {
		return none, err
	}
	// With this as the gateway the engine takes no address of the pool for one. Containers have 169.254.1.1.
	gateway := "0.0.0.0/0"
	if pool.CIDR.Addr().Is6() {
		gateway = "::/0"
	}
	return plugin.RequestPoolResponse{
		PoolID: pool.CIDR.String(),
		Pool:   pool.CIDR.String(),
		Data:   map[string]string{plugin.DataGateway: gateway},
	}, nil
}

// ReleasePool gives back a pool that this driver made for a network that was then not created. Of one that is removed
// the record is still there; its pools are given up with it.
func (d *Driver) ReleasePool(ctx context.Context, r plugin.ReleasePoolRequest) (plugin.Empty, error) {
	cidr, err := datastore.ParseCIDR(r.PoolID)
	if err != nil {
		return plugin.Empty{}, err
	}
	d.promises.change(cidr, -1)
	if d.Used(cidr) {
		return plugin.Empty{}, nil
	}
	if err = d.LeavePool(ctx, cidr); errors.Is(err, ErrStays) {
		return plugin.Empty{}, nil
	}
	return plugin.Empty{}, err
}

// RequestAddress takes a certain address of the pool or the next free one.
func (d *Driver) RequestAddress(
	ctx context.Context, r plugin.RequestAddressRequest,
) (plugin.RequestAddressResponse, error) {
	var none plugin.RequestAddressResponse
	if r.Options[plugin.RequestType] == plugin.TypeGateway {
		return none, fmt.Errorf("--gateway %s: a Calico network has no gateway address, containers reach their host "+
			"by 169.254.1.1; leave --gateway out", r.Address)
	}
	ctx, cancel := d.Take.Bound(ctx)
	defer cancel()
	var address netip.Addr
	var err error
	if r.Address == "" {
		address, err = d.any(ctx, r.PoolID)
	} else {
		address, err = d.certain(ctx, r.PoolID, r.Address)
	}
	if err != nil {
		return none, err
	}
	return plugin.RequestAddressResponse{Address: netip.PrefixFrom(address, address.BitLen()).String()}, nil
}

// poolWithID returns the enabled pool.
func (d *Driver) poolWithID(ctx context.Context, poolID string) (datastore.Pool, error) {
	var pools datastore.Pools
	err := d.Take.Do(ctx, "list Calico's IP pools", func(ctx context.Context) (err error) {
		pools, err = datastore.EnabledPools(ctx, d.Pools)
		return err
	})
	if err != nil {
		return datastore.Pool{}, err
	}
	return pools.WithCIDR(poolID)
}

// any takes and claims the next free address of the pool with this ID. IPAM looks the pool up itself: only what is said when there is
// no address needs to know which it is.
func (d *Driver) any(ctx context.Context, poolID string) (netip.Addr, error) {
	pool, err := datastore.ParseCIDR(poolID)
	if err != nil {
		return netip.Addr{}, err
	}
	args := calico.AutoAssignArgs{
		Attrs:    Attributes(d.Node),
		Hostname: d.Node,
		// Without the use no pool matches.
		IntendedUse: v3.IPPoolAllowedUseWorkload,
	}
	cidr := []cnet.IPNet{cnet.MustParseCIDR(pool.String())}
	if pool.Addr().Is6() {
		args.Num6, args.IPv6Pools = 1, cidr
	} else {
		args.Num4, args.IPv4Pools = 1, cidr
	}
	var assigned []cnet.IPNet
	var reasons, handles []string
	defer func() { d.triedMoreThanOnce(handles) }()
	err = d.Take.Do(ctx, "assign an address of pool "+poolID, func(ctx context.Context) error {
		handle := NewHandle()
		handles = append(handles, handle)
		args.HandleID = &handle
		d.claims.try(handle)
		v4, v6, err := d.Addresses.AutoAssign(ctx, args)
		for _, part := range []*calico.IPAMAssignments{v4, v6} {
			if part != nil {
				assigned = append(assigned, part.IPs...)
				reasons = append(reasons, part.Msgs...)
			}
		}
		if datastore.Absent(err) {
			return fmt.Errorf("node %s is not in Calico's datastore: start Calico on this host first (%w)", d.Node, err)
		}
		return err
	})
	if err == nil && len(assigned) > 0 {
		address, _ := netip.AddrFromSlice(assigned[0].IP)
		address = address.Unmap()
		d.claims.add(address)
		return address, nil
	}
	if datastore.Unanswered(err) {
		return netip.Addr{}, err
	}
	known, unknown := d.poolWithID(ctx, poolID)
	if failed := cmp.Or(unknown, err); failed != nil {
		return netip.Addr{}, failed
	}
	return netip.Addr{}, fmt.Errorf("pool %s has no free address for host %s: remove containers or add a pool (%s)",
		known, d.Node, strings.Join(reasons, "; "))
}

// takeovers is how often an address that nothing uses is freed and assigned anew, when others are quicker each time.
const takeovers = 3

// certain takes and claims the address that the person asked for with --ip.
func (d *Driver) certain(ctx context.Context, poolID, wanted string) (netip.Addr, error) {
	address, err := netip.ParseAddr(wanted)
	if err != nil {
		return address, fmt.Errorf("--ip %s: not an address: %w", wanted, err)
	}
	pool, err := d.poolWithID(ctx, poolID)
	if err != nil {
		return address, err
	}
	if !pool.CIDR.Contains(address) {
		return address, fmt.Errorf("--ip %s: outside pool %s", wanted, pool)
	}
	defer d.turns.take(address)()
	var handles []string
	defer func() { d.triedMoreThanOnce(handles) }()
	for range takeovers {
		err = d.Take.Do(ctx, "assign address "+wanted, func(ctx context.Context) error {
			handle, err := d.assign(ctx, address)
			handles = append(handles, handle)
			return err
		})
		mine := err == nil
		if datastore.Present(err) {
			mine, err = d.adopt(ctx, address, handles)
		}
		switch {
		case mine:
			d.claims.add(address)
			return address, nil
		case err != nil:
			return address, err
		}
	}
	return address, fmt.Errorf("--ip %s: other hosts assign and release it at the same time: try again", wanted)
}

// assign assigns the address by a handle of its own, which it returns.
func (d *Driver) assign(ctx context.Context, address netip.Addr) (string, error) {
	handle := NewHandle()
	args := calico.AssignIPArgs{
		IP:          cnet.MustParseIP(address.String()),
		Attrs:       Attributes(d.Node),
		Hostname:    d.Node,
		IntendedUse: v3.IPPoolAllowedUseWorkload,
		HandleID:    &handle,
	}
	d.claims.try(handle)
	err := d.Addresses.AssignIP(ctx, args)
	if blockClaimed(err) {
		// The block is there now, and an address can be taken from another host's block as well.
		err = d.Addresses.AssignIP(ctx, args)
	}
	return handle, err
}

// triedMoreThanOnce ends the tries of a call, and has reconciliation look for what the ones before the last have left. Each
// has a handle of its own: IPAM counts a handle's addresses before it assigns them, so that one used twice would outlive its
// address.
func (d *Driver) triedMoreThanOnce(handles []string) {
	d.claims.tried(handles)
	if len(handles) > 1 {
		d.Doubt()
	}
}

// blockClaimed tells that another host has made the address's block at the same moment. The library means to try again
// itself, but looks for a pointer to an error that it returns as a value (libcalico-go/lib/ipam/ipam.go, AssignIP, of
// v3.31.0), whose type it does not export.
func blockClaimed(err error) bool {
	return err != nil && strings.Contains(err.Error(), " already claimed")
}

// adopt decides on an address that is already allocated: mine tells that an earlier try of this call has got it. Where it
// is neither mine nor an error, the address is free now: it was this driver's own and nothing used it any more, as after a
// crash of the engine or a release that etcd did not hear of.
func (d *Driver) adopt(ctx context.Context, address netip.Addr, handles []string) (mine bool, err error) {
	var found holding
	err = d.Take.Do(ctx, "ask who has address "+address.String(), func(ctx context.Context) (err error) {
		found, err = d.holding(ctx, address)
		return err
	})
	endpoint := found.endpoint
	switch {
	case err != nil:
		return false, err
	case !found.allocated && endpoint == nil:
		// Who had it has released it in between.
		return false, nil
	case found.allocated && slices.Contains(handles, found.handle):
		// The answer to an earlier try was lost, not the allocation.
		return true, nil
	case endpoint != nil && (endpoint.Spec.Node != d.Node || d.Attached(endpoint.Spec.InterfaceName)):
		return false, fmt.Errorf("--ip %s: taken by %s on host %s", address, holder(endpoint), endpoint.Spec.Node)
	case found.allocated && found.node != d.Node:
		return false, fmt.Errorf("--ip %s: taken on host %s", address, orUnknown(found.node))
	case found.allocated && !strings.HasPrefix(found.handle, HandlePrefix):
		return false, fmt.Errorf("--ip %s: taken on this host, not by a container (handle %s)", address,
			orUnknown(found.handle))
	case d.claims.has(address, settling):
		return false, fmt.Errorf("--ip %s: taken by another container that is starting on this host", address)
	}
	if endpoint != nil {
		if err := d.Remove(ctx, endpoint.Spec.Endpoint); err != nil {
			return false, err
		}
	}
	d.claims.drop(address)
	d.owe(address, 1)
	if found.allocated {
		err = d.free(ctx, address, found.handle)
	}
	d.Log.Info("takes over an address that nothing on this host uses any more", "address", address,
		"handle", found.handle, "error", err)
	return false, err
}

// ReleaseAddress gives the address back when this driver on this node holds it.
func (d *Driver) ReleaseAddress(ctx context.Context, r plugin.ReleaseAddressRequest) (plugin.Empty, error) {
	address, err := netip.ParseAddr(r.Address)
	if err != nil {
		return plugin.Empty{}, fmt.Errorf("release %q: not an address: %w", r.Address, err)
	}
	if address.IsUnspecified() {
		// The gateway that RequestPool named, which was never allocated.
		return plugin.Empty{}, nil
	}
	defer d.turns.take(address)()
	if d.Owed.Owed(address) > 0 {
		// A container that is being removed gives its interface up first and its address last. Another may have got
		// the address in between, and must not lose it to this call. Reconciliation finds out if it was its own.
		d.owe(address, -1)
		d.Log.Info("not released: the address has gone over to another container", "address", address)
		d.Doubt()
		return plugin.Empty{}, nil
	}
	d.claims.drop(address)
	if err := d.removeLeftEndpoint(ctx, address); err != nil {
		return plugin.Empty{}, err
	}
	return plugin.Empty{}, d.Give.Do(ctx, "release address "+r.Address, func(ctx context.Context) error {
		return d.release(ctx, address)
	})
}

// ReleaseLeft releases an allocation that no container had when reconciliation looked, unless one may have got it since. The
// claim is looked at twice: before this call's turn, because a call that has the address's turn may wait for etcd, and in
// it, because that call may have ended with the address.
func (d *Driver) ReleaseLeft(ctx context.Context, left datastore.Allocation) error {
	stays := fmt.Errorf("%w: %s has gone over to a container", ErrStays, left.Address)
	if d.Claimed(left) {
		return stays
	}
	defer d.turns.take(left.Address)()
	if d.Claimed(left) {
		return stays
	}
	endpoint, err := d.Endpoints.OwnWithAddress(ctx, left.Address)
	if err != nil {
		return err
	}
	if endpoint != nil {
		return fmt.Errorf("%w: endpoint %s still has address %s", ErrStays, endpoint.Spec.Endpoint, left.Address)
	}
	d.claims.drop(left.Address)
	_, _, err = d.Addresses.ReleaseIPs(ctx, calico.ReleaseOptions{
		Address: left.Address.String(), Handle: left.Handle, SequenceNumber: &left.Sequence,
	})
	if datastore.Conflict(err) {
		// It is released, and allocated anew.
		return nil
	}
	return err
}

// removeLeftEndpoint removes the endpoint that still has the address. Engines delete the endpoint before they release
// its address, but one that starts after a crash cleans up before it has loaded its network drivers: it then releases
// addresses and deletes no endpoint. Without this the address could go to a second endpoint.
func (d *Driver) removeLeftEndpoint(ctx context.Context, address netip.Addr) error {
	var endpoint *libapi.WorkloadEndpoint
	err := d.Give.Do(ctx, "look for an endpoint with address "+address.String(), func(ctx context.Context) (err error) {
		endpoint, err = d.Endpoints.OwnWithAddress(ctx, address)
		return err
	})
	if err != nil || endpoint == nil {
		return err
	}
	d.Log.Info("the engine released the address of an endpoint that it had not deleted", "address", address,
		"endpoint", endpoint.Spec.Endpoint)
	return d.Remove(ctx, endpoint.Spec.Endpoint)
}

func (d *Driver) release(ctx context.Context, address netip.Addr) error {
	attributes, handle, err := d.Addresses.GetAssignmentAttributes(ctx, cnet.MustParseIP(address.String()))
	if datastore.Absent(err) {
		// By an earlier try, it may be, of which only the answer was lost, or else the handle's turn.
		d.Doubt()
		return nil
	}
	if err != nil {
		return err
	}
	if handle == nil || !strings.HasPrefix(*handle, HandlePrefix) || attributes[calico.AttributeNode] != d.Node {
		d.Log.Warn("not released: the address belongs to somebody else by now", "address", address,
			"handle", deref(handle), "node", attributes[calico.AttributeNode])
		return nil
	}
	_, _, err = d.Addresses.ReleaseIPs(ctx, calico.ReleaseOptions{Address: address.String(), Handle: *handle})
	if err != nil {
		return err
	}
	// The library tells nobody when the handle did not go with the address, as when etcd is late with that answer.
	if _, left := d.Addresses.IPsByHandle(ctx, *handle); !datastore.Absent(left) {
		d.Doubt()
	}
	return nil
}

// Attributes are what an allocation of the node tells about itself.
func Attributes(node string) map[string]string {
	return map[string]string{
		calico.AttributeNode:      node,
		calico.AttributeTimestamp: time.Now().UTC().Format(time.RFC3339),
	}
}

// NewHandle returns a handle that no other allocation has.
func NewHandle() string {
	random := make([]byte, 16)
	// crypto/rand.Read never fails: it ends the program instead.
	_, _ = rand.Read(random)
	return HandlePrefix + hex.EncodeToString(random)
}

func holder(endpoint *libapi.WorkloadEndpoint) string {
	if name := endpoint.Annotations[workload.ContainerName]; name != "" {
		return "container " + name
	}
	return "endpoint " + endpoint.Spec.Endpoint
}

func deref(text *string) string {
	if text == nil {
		return ""
	}
	return *text
}

func orUnknown(text string) string {
	if text == "" {
		return "(unknown)"
	}
	return text
}

// turns lets calls about one address follow each other: of one that takes it over and one that gives it back, the
// second has to see what the first did.
type turns struct {
	mutex sync.Mutex
	taken map[netip.Addr]chan struct{}
}

// take waits for the address's turn, and returns what ends it.
func (t *turns) take(address netip.Addr) func() {
	for {
		t.mutex.Lock()
		ended, busy := t.taken[address]
		if !busy {
			break
		}
		t.mutex.Unlock()
		<-ended
	}
	defer t.mutex.Unlock()
	if t.taken == nil {
		t.taken = map[netip.Addr]chan struct{}{}
	}
	mine := make(chan struct{})
	t.taken[address] = mine
	return func() {
		t.mutex.Lock()
		defer t.mutex.Unlock()
		delete(t.taken, address)
		close(mine)
	}
}
