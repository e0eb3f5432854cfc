// Package ipam implements Docker's IPAM driver on Calico's IPAM. Addresses come from the network's own pool only. Each
// allocation has a handle of its own and this node's name. A requested address is assigned, or refused with the reason.
// Releasing is idempotent.
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

// HandlePrefix is the prefix of the handles of this driver's allocations. The rest is random, because Docker requests an
// address before the driver knows the endpoint's ID.
const HandlePrefix = "docker-"

// LocalSpace and GlobalSpace are the address spaces by which the network driver recognises this IPAM driver.
const (
	LocalSpace  = "calico-local"
	GlobalSpace = "calico-global"
)

// Addresses is the part of Calico's IPAM client that the driver uses.
type Addresses interface {
	AssignIP(ctx context.Context, args calico.AssignIPArgs) error
	AutoAssign(ctx context.Context, args calico.AutoAssignArgs) (*calico.IPAMAssignments, *calico.IPAMAssignments, error)
	ReleaseIPs(ctx context.Context, ips ...calico.ReleaseOptions) ([]cnet.IP, []calico.ReleaseOptions, error)
	GetAssignmentAttributes(ctx context.Context, address cnet.IP) (map[string]string, *string, error)
	IPsByHandle(ctx context.Context, handle string) ([]cnet.IP, error)
	GetUtilization(ctx context.Context, args calico.GetUtilizationArgs) ([]*calico.PoolUtilization, error)
}

// Endpoints finds WorkloadEndpoints by their addresses, and deletes them.
type Endpoints interface {
	// WithAddress returns the endpoint with the address, of any node, or nil.
	WithAddress(ctx context.Context, address netip.Addr) (*libapi.WorkloadEndpoint, error)
	// NodeWithAddress returns this node's endpoint with the address, or nil.
	NodeWithAddress(ctx context.Context, address netip.Addr) (*libapi.WorkloadEndpoint, error)
	Delete(ctx context.Context, endpointID string) error
}

// Interfaces are this host's network interfaces.
type Interfaces interface {
	Exists(name string) bool
}

// Remover removes an endpoint from this host and from the datastore, without its addresses.
type Remover interface {
	Remove(ctx context.Context, endpointID string) error
}

// Records are the part of this host's store that the driver uses.
type Records interface {
	// UsesPool reports whether a network of this host uses the pool.
	UsesPool(cidr netip.Prefix) bool
	// StaleReleases returns how many releases of the address are expected from containers that no longer have it.
	StaleReleases(address netip.Addr) int
	SetStaleReleases(address netip.Addr, count int) error
}

// ErrInUse is returned when a pool or an allocation that seemed to be leaked is in use.
var ErrInUse = errors.New("in use")

// Driver handles the calls.
type Driver struct {
	Node       string
	Pools      Pools
	Addresses  Addresses
	Endpoints  Endpoints
	Interfaces Interfaces
	Remover    Remover
	Records    Records
	// StartRetry is for calls that the start of a container waits for, CleanupRetry for calls that release something.
	StartRetry, CleanupRetry datastore.Retry
	// RequestReconcile requests a reconciliation, for when a call may have left something.
	RequestReconcile func()
	Log              *slog.Logger

	claims   claims
	locks    addressLocks
	requests poolRequests
	// poolsMutex serialises changes of the list of hosts of a pool, so that the list agrees with this host's networks.
	poolsMutex sync.Mutex
}

// Calls returns the calls of the IPAM driver.
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

// GetCapabilities requests no replay of addresses, because the allocations are in etcd and reconciliation repairs
// differences.
func (d *Driver) GetCapabilities(context.Context, plugin.Empty) (plugin.IpamCapabilities, error) {
	return plugin.IpamCapabilities{}, nil
}

// GetDefaultAddressSpaces returns the address spaces. Both contain Calico's pools.
func (d *Driver) GetDefaultAddressSpaces(context.Context, plugin.Empty) (plugin.AddressSpaces, error) {
	return plugin.AddressSpaces{LocalDefaultAddressSpace: LocalSpace, GlobalDefaultAddressSpace: GlobalSpace}, nil
}

// RequestPool finds the requested IPPool, or creates it if the request has a block size. The pool's ID is its CIDR, so the
// driver needs no state for it.
func (d *Driver) RequestPool(ctx context.Context, r plugin.RequestPoolRequest) (plugin.RequestPoolResponse, error) {
	var none plugin.RequestPoolResponse
	if r.SubPool != "" {
		return none, fmt.Errorf("--ip-range %s: a Calico network uses its whole pool; create an IPPool of that range "+
			"and use it as --subnet", r.SubPool)
	}
	pool, err := d.findOrCreatePool(ctx, r)
	if err != nil {
		return none, err
	}
	// With this gateway the engine allocates no gateway address from the pool. The containers' next hop is 169.254.1.1.
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

// ReleasePool deletes a pool that this driver created for a network that was then not created. When a network is removed,
// this call comes before DeleteNetwork, which unregisters the host from its pools.
func (d *Driver) ReleasePool(ctx context.Context, r plugin.ReleasePoolRequest) (plugin.Empty, error) {
	cidr, err := datastore.ParseCIDR(r.PoolID)
	if err != nil {
		return plugin.Empty{}, err
	}
	d.requests.add(cidr, -1)
	if d.Records.UsesPool(cidr) {
		return plugin.Empty{}, nil
	}
	if err = d.UnregisterHost(ctx, cidr); errors.Is(err, ErrInUse) {
		return plugin.Empty{}, nil
	}
	return plugin.Empty{}, err
}

// RequestAddress assigns the requested address of the pool, or the next free one.
func (d *Driver) RequestAddress(
	ctx context.Context, r plugin.RequestAddressRequest,
) (plugin.RequestAddressResponse, error) {
	var none plugin.RequestAddressResponse
	if r.Options[plugin.RequestType] == plugin.TypeGateway {
		return none, fmt.Errorf("--gateway %s: a Calico network has no gateway address, containers reach their host "+
			"by 169.254.1.1; leave --gateway out", r.Address)
	}
	ctx, cancel := d.StartRetry.Context(ctx)
	defer cancel()
	var address netip.Addr
	var err error
	if r.Address == "" {
		address, err = d.assignNext(ctx, r.PoolID)
	} else {
		address, err = d.assignRequested(ctx, r.PoolID, r.Address)
	}
	if err != nil {
		return none, err
	}
	return plugin.RequestAddressResponse{Address: netip.PrefixFrom(address, address.BitLen()).String()}, nil
}

// enabledPool returns the enabled pool with the ID.
func (d *Driver) enabledPool(ctx context.Context, poolID string) (datastore.Pool, error) {
	var pools datastore.Pools
	err := d.StartRetry.Do(ctx, "list Calico's IP pools", func(ctx context.Context) (err error) {
		pools, err = datastore.EnabledPools(ctx, d.Pools)
		return err
	})
	if err != nil {
		return datastore.Pool{}, err
	}
	return pools.WithCIDR(poolID)
}

// assignNext assigns and claims the next free address of the pool. IPAM checks the pool itself, so the driver reads it only
// for the error message when no address is free.
func (d *Driver) assignNext(ctx context.Context, poolID string) (netip.Addr, error) {
	pool, err := datastore.ParseCIDR(poolID)
	if err != nil {
		return netip.Addr{}, err
	}
	args := calico.AutoAssignArgs{
		Attrs:    Attributes(d.Node),
		Hostname: d.Node,
		// Without an intended use no pool matches.
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
	defer func() { d.endAssign(handles) }()
	err = d.StartRetry.Do(ctx, "assign an address of pool "+poolID, func(ctx context.Context) error {
		handle := NewHandle()
		handles = append(handles, handle)
		args.HandleID = &handle
		d.claims.beginAssign(handle)
		v4, v6, err := d.Addresses.AutoAssign(ctx, args)
		for _, part := range []*calico.IPAMAssignments{v4, v6} {
			if part != nil {
				assigned = append(assigned, part.IPs...)
				reasons = append(reasons, part.Msgs...)
			}
		}
		if datastore.IsNotFound(err) {
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
	if datastore.IsTimeout(err) {
		return netip.Addr{}, err
	}
	known, unknown := d.enabledPool(ctx, poolID)
	if failed := cmp.Or(unknown, err); failed != nil {
		return netip.Addr{}, failed
	}
	return netip.Addr{}, fmt.Errorf("pool %s has no free address for host %s: remove containers or add a pool (%s)",
		known, d.Node, strings.Join(reasons, "; "))
}

// assignAttempts limits how often an unused address is released and assigned again if other hosts assign it in between.
const assignAttempts = 3

// assignRequested assigns and claims the address of --ip.
func (d *Driver) assignRequested(ctx context.Context, poolID, requested string) (netip.Addr, error) {
	address, err := netip.ParseAddr(requested)
	if err != nil {
		return address, fmt.Errorf("--ip %s: not an address: %w", requested, err)
	}
	pool, err := d.enabledPool(ctx, poolID)
	if err != nil {
		return address, err
	}
	if !pool.CIDR.Contains(address) {
		return address, fmt.Errorf("--ip %s: outside pool %s", requested, pool)
	}
	defer d.locks.lock(address)()
	var handles []string
	defer func() { d.endAssign(handles) }()
	for range assignAttempts {
		err = d.StartRetry.Do(ctx, "assign address "+requested, func(ctx context.Context) error {
			handle, err := d.assignIP(ctx, address)
			handles = append(handles, handle)
			return err
		})
		assigned := err == nil
		if datastore.IsAlreadyExists(err) {
			assigned, err = d.resolveConflict(ctx, address, handles)
		}
		switch {
		case assigned:
			d.claims.add(address)
			return address, nil
		case err != nil:
			return address, err
		}
	}
	return address, fmt.Errorf("--ip %s: other hosts assign and release it at the same time: try again", requested)
}

// assignIP assigns the address with a new handle, which it returns.
func (d *Driver) assignIP(ctx context.Context, address netip.Addr) (string, error) {
	handle := NewHandle()
	args := calico.AssignIPArgs{
		IP:          cnet.MustParseIP(address.String()),
		Attrs:       Attributes(d.Node),
		Hostname:    d.Node,
		IntendedUse: v3.IPPoolAllowedUseWorkload,
		HandleID:    &handle,
	}
	d.claims.beginAssign(handle)
	err := d.Addresses.AssignIP(ctx, args)
	if isBlockClaimed(err) {
		// The block exists now, and an address can also be assigned from another host's block.
		err = d.Addresses.AssignIP(ctx, args)
	}
	return handle, err
}

// endAssign ends the assignments of a call. After more than one attempt it requests a reconciliation, because an earlier
// attempt may have left its handle. Each attempt has a handle of its own: IPAM increments a handle's count before it assigns
// the address, so a handle of two attempts would remain after the release of its address.
func (d *Driver) endAssign(handles []string) {
	d.claims.endAssign(handles)
	if len(handles) > 1 {
		d.RequestReconcile()
	}
}

// isBlockClaimed reports whether another host has claimed the address's block at the same time. The library retries
// this error only if it is a pointer, but returns it as a value (libcalico-go/lib/ipam/ipam.go, AssignIP, of v3.31.0).
// It does not export the type.
func isBlockClaimed(err error) bool {
	return err != nil && strings.Contains(err.Error(), " already claimed")
}

// resolveConflict handles an address that is already allocated. It returns true if an earlier attempt of this call has
// assigned it. If it returns neither true nor an error, the address is free now: it was an unused address of this host, for
// example after a crash of the engine or a release that did not reach etcd.
func (d *Driver) resolveConflict(ctx context.Context, address netip.Addr, handles []string) (assigned bool, err error) {
	found, err := d.lookUpOwner(ctx, address)
	endpoint := found.endpoint
	switch {
	case err != nil:
		return false, err
	case !found.allocated && endpoint == nil:
		// It was released in between.
		return false, nil
	case found.allocated && slices.Contains(handles, found.handle):
		// The response to an earlier attempt was lost.
		return true, nil
	case endpoint != nil && (endpoint.Spec.Node != d.Node || d.Interfaces.Exists(endpoint.Spec.InterfaceName)):
		return false, fmt.Errorf("--ip %s: taken by %s on host %s", address, containerOf(endpoint), endpoint.Spec.Node)
	case found.allocated && found.node != d.Node:
		return false, fmt.Errorf("--ip %s: taken on host %s", address, orUnknown(found.node))
	case found.allocated && !strings.HasPrefix(found.handle, HandlePrefix):
		return false, fmt.Errorf("--ip %s: taken on this host, not by a container (handle %s)", address,
			orUnknown(found.handle))
	case d.claims.active(address, startWindow):
		return false, fmt.Errorf("--ip %s: taken by another container that is starting on this host", address)
	}
	if endpoint != nil {
		if err := d.Remover.Remove(ctx, endpoint.Spec.Endpoint); err != nil {
			return false, err
		}
	}
	d.claims.remove(address)
	d.addStaleReleases(address, 1)
	if found.allocated {
		err = d.releaseUnused(ctx, address, found.handle)
	}
	d.Log.Info("released an unused address of this host", "address", address, "handle", found.handle, "error", err)
	return false, err
}

// ReleaseAddress releases the address if it is allocated by this driver on this node.
func (d *Driver) ReleaseAddress(ctx context.Context, r plugin.ReleaseAddressRequest) (plugin.Empty, error) {
	address, err := netip.ParseAddr(r.Address)
	if err != nil {
		return plugin.Empty{}, fmt.Errorf("release %q: not an address: %w", r.Address, err)
	}
	if address.IsUnspecified() {
		// The gateway of RequestPool's response, which is not allocated.
		return plugin.Empty{}, nil
	}
	defer d.locks.lock(address)()
	if d.Records.StaleReleases(address) > 0 {
		// The engine removes a container's interface before it releases the address. If another container has got the
		// address in between, this release must not take it away. If the address is leaked, reconciliation releases it.
		d.addStaleReleases(address, -1)
		d.Log.Info("stale release ignored: another container has got the address", "address", address)
		d.RequestReconcile()
		return plugin.Empty{}, nil
	}
	d.claims.remove(address)
	if err := d.removeStaleEndpoint(ctx, address); err != nil {
		return plugin.Empty{}, err
	}
	return plugin.Empty{}, d.CleanupRetry.Do(ctx, "release address "+r.Address, func(ctx context.Context) error {
		return d.release(ctx, address)
	})
}

// ReleaseLeaked releases an allocation that no container had when reconciliation read it. It returns ErrInUse if a container
// may have got it since. It checks the claim twice: before the lock, because a call that has the lock may wait for etcd, and
// after it, because that call may have assigned the address.
func (d *Driver) ReleaseLeaked(ctx context.Context, leaked datastore.Allocation) error {
	inUse := fmt.Errorf("%w: a container has got %s", ErrInUse, leaked.Address)
	if d.Claimed(leaked) {
		return inUse
	}
	defer d.locks.lock(leaked.Address)()
	if d.Claimed(leaked) {
		return inUse
	}
	endpoint, err := d.Endpoints.NodeWithAddress(ctx, leaked.Address)
	if err != nil {
		return err
	}
	if endpoint != nil {
		return fmt.Errorf("%w: endpoint %s has address %s", ErrInUse, endpoint.Spec.Endpoint, leaked.Address)
	}
	d.claims.remove(leaked.Address)
	_, _, err = d.Addresses.ReleaseIPs(ctx, calico.ReleaseOptions{
		Address: leaked.Address.String(), Handle: leaked.Handle, SequenceNumber: &leaked.Sequence,
	})
	if datastore.IsConflict(err) {
		// It was released and assigned again in between.
		return nil
	}
	return err
}

// removeStaleEndpoint removes an endpoint that still has the address. Engines delete an endpoint before they release its
// address. But an engine that starts after a crash cleans up before it has loaded its network drivers, and then releases
// addresses without deleting endpoints. Otherwise a second endpoint could get the address.
func (d *Driver) removeStaleEndpoint(ctx context.Context, address netip.Addr) error {
	var endpoint *libapi.WorkloadEndpoint
	err := d.CleanupRetry.Do(ctx, "look up the endpoint with address "+address.String(),
		func(ctx context.Context) (err error) {
			endpoint, err = d.Endpoints.NodeWithAddress(ctx, address)
			return err
		})
	if err != nil || endpoint == nil {
		return err
	}
	d.Log.Info("the engine released the address of an endpoint that it had not deleted", "address", address,
		"endpoint", endpoint.Spec.Endpoint)
	return d.Remover.Remove(ctx, endpoint.Spec.Endpoint)
}

func (d *Driver) release(ctx context.Context, address netip.Addr) error {
	attributes, handle, err := d.Addresses.GetAssignmentAttributes(ctx, cnet.MustParseIP(address.String()))
	if datastore.IsNotFound(err) {
		// An earlier attempt whose response was lost may have released it, and may have left its handle.
		d.RequestReconcile()
		return nil
	}
	if err != nil {
		return err
	}
	if handle == nil || !strings.HasPrefix(*handle, HandlePrefix) || attributes[calico.AttributeNode] != d.Node {
		d.Log.Warn("not released: the address has another owner now", "address", address, "handle", deref(handle),
			"node", attributes[calico.AttributeNode])
		return nil
	}
	_, _, err = d.Addresses.ReleaseIPs(ctx, calico.ReleaseOptions{Address: address.String(), Handle: *handle})
	if err != nil {
		return err
	}
	// The library returns no error if it releases the address and fails to delete the handle.
	if _, remaining := d.Addresses.IPsByHandle(ctx, *handle); !datastore.IsNotFound(remaining) {
		d.RequestReconcile()
	}
	return nil
}

// Attributes are the attributes of an allocation of the node.
func Attributes(node string) map[string]string {
	return map[string]string{
		calico.AttributeNode:      node,
		calico.AttributeTimestamp: time.Now().UTC().Format(time.RFC3339),
	}
}

// NewHandle returns a new random handle.
func NewHandle() string {
	random := make([]byte, 16)
	// crypto/rand.Read returns no error: it ends the program if it fails.
	_, _ = rand.Read(random)
	return HandlePrefix + hex.EncodeToString(random)
}

// containerOf names the endpoint's container for an error message.
func containerOf(endpoint *libapi.WorkloadEndpoint) string {
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
