package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	libapi "github.com/projectcalico/calico/libcalico-go/lib/apis/v3"
	calico "github.com/projectcalico/calico/libcalico-go/lib/ipam"
	cnet "github.com/projectcalico/calico/libcalico-go/lib/net"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/workload"
)

// repeatWindow is how long an engine repeats a call without a response (30 s in pkg/plugins/client.go).
const repeatWindow = 30 * time.Second

// startWindow is how long after its last call a claim blocks another container that requests the address by --ip. An engine
// makes the next call of a start at once, unless it waits for an address of the other family.
const startWindow = 15 * time.Second

// claims are the addresses of containers that are starting on this host. Docker has an endpoint only after its address is
// assigned and the endpoint is stored. Until then the datastore cannot tell such an address from one that a crash left
// behind. Two rules prevent that two containers get one address:
//
//   - Reconciliation releases no claimed address. A claim is active during calls about the address, and for claimLifetime
//     after each of them.
//   - A time limit alone is not safe, because an engine can be slow and a driver can be killed. So CreateEndpoint accepts an
//     address without a claim only if IPAM has it for this host, no other endpoint has it, and IPAM has assigned it again:
//     after that write, a release that is still in progress in etcd fails, because the address's block has changed.
//
// An endpoint is deleted before its address is released, so that no endpoint is stored with an address that another host may
// get.
type claims struct {
	mutex sync.Mutex
	// assigning are the handles of assignments in progress.
	assigning map[string]bool
	byAddress map[netip.Addr]*claim
}

type claim struct {
	// endpoint has the address. It is empty until CreateEndpoint.
	endpoint string
	// calls is the number of calls about the endpoint in progress.
	calls int
	// lastCall is the end of the last call.
	lastCall time.Time
}

// active reports whether a call is in progress, or has ended within the window.
func (c *claim) active(window time.Duration) bool {
	return c != nil && (c.calls > 0 || time.Since(c.lastCall) <= window)
}

// beginAssign records that an assignment with the handle is in progress.
func (c *claims) beginAssign(handle string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.assigning == nil {
		c.assigning = map[string]bool{}
	}
	c.assigning[handle] = true
}

// endAssign records that no assignment with the handles is in progress. An address with one of the handles is now either
// claimed or leaked.
func (c *claims) endAssign(handles []string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, handle := range handles {
		delete(c.assigning, handle)
	}
}

// add claims an address that has just been assigned.
func (c *claims) add(address netip.Addr) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.byAddress == nil {
		c.byAddress = map[netip.Addr]*claim{}
	}
	c.byAddress[address] = &claim{lastCall: time.Now()}
}

func (c *claims) remove(address netip.Addr) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	delete(c.byAddress, address)
}

// bind binds the claim to the endpoint. It returns false if there is no claim or if it is bound to another endpoint.
func (c *claims) bind(address netip.Addr, endpoint string) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	found := c.byAddress[address]
	if found == nil || found.endpoint != "" && found.endpoint != endpoint {
		return false
	}
	found.endpoint = endpoint
	return true
}

// bound reports whether the claims of all addresses are bound to the endpoint.
func (c *claims) bound(endpoint string, addresses []netip.Addr) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return !slices.ContainsFunc(addresses, func(address netip.Addr) bool {
		found := c.byAddress[address]
		return found == nil || found.endpoint != endpoint
	})
}

// active reports whether the address has an active claim.
func (c *claims) active(address netip.Addr, window time.Duration) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.byAddress[address].active(window)
}

// beginCall records that a call about the endpoint is in progress until end is called.
func (c *claims) beginCall(endpoint string) (end func()) {
	var counted []*claim
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, each := range c.byAddress {
		if each.endpoint == endpoint {
			each.calls++
			counted = append(counted, each)
		}
	}
	return func() {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		for _, each := range counted {
			each.calls--
			each.lastCall = time.Now()
		}
	}
}

// addStaleReleases changes the number of releases of the address that are expected from containers that no longer have it.
// The number is stored, because such a release may come after a restart of the driver. The address must be locked.
func (d *Driver) addStaleReleases(address netip.Addr, count int) {
	if err := d.Records.SetStaleReleases(address, d.Records.StaleReleases(address)+count); err != nil {
		d.Log.Warn("expected stale release not stored; after a restart the driver would carry it out", "address", address,
			"error", err)
	}
}

// Claimed reports whether the allocation may be that of a container that is starting on this host.
func (d *Driver) Claimed(allocation datastore.Allocation) bool {
	d.claims.mutex.Lock()
	assigning := d.claims.assigning[allocation.Handle]
	d.claims.mutex.Unlock()
	return assigning || d.claims.active(allocation.Address, d.claimLifetime())
}

// Starting reports whether the endpoint may be that of a container that is starting on this host. Docker may not list it
// yet.
func (d *Driver) Starting(endpointID string) bool {
	d.claims.mutex.Lock()
	defer d.claims.mutex.Unlock()
	for _, each := range d.claims.byAddress {
		if each.endpoint == endpointID && each.active(d.claimLifetime()) {
			return true
		}
	}
	return false
}

// RemoveClaims removes the claims of an endpoint that Docker deletes.
func (d *Driver) RemoveClaims(endpointID string) {
	d.claims.mutex.Lock()
	defer d.claims.mutex.Unlock()
	for address, each := range d.claims.byAddress {
		if each.endpoint == endpointID {
			delete(d.claims.byAddress, address)
		}
	}
}

// claimLifetime is how long a claim is active after a call: the engine may wait for an address of the other family, and it
// repeats a call during which the driver was killed.
func (d *Driver) claimLifetime() time.Duration { return d.StartRetry.Timeout + repeatWindow }

// BindAddresses binds the addresses to the endpoint and locks them until unlock is called. It returns an error if another
// container has got one of them.
func (d *Driver) BindAddresses(
	ctx context.Context, endpointID string, addresses []netip.Addr,
) (unlock func(), err error) {
	unlock = d.locks.lockAll(addresses)
	for _, address := range addresses {
		if err := d.bindAddress(ctx, endpointID, address); err != nil {
			unlock()
			return nil, err
		}
	}
	return d.beginCall(endpointID, unlock), nil
}

// LockAddresses locks the addresses of an endpoint until unlock is called. If bound is false, the endpoint may have been
// removed before the lock, and the caller has to read it again.
func (d *Driver) LockAddresses(endpointID string, addresses []netip.Addr) (bound bool, unlock func()) {
	unlock = d.locks.lockAll(addresses)
	return d.claims.bound(endpointID, addresses), d.beginCall(endpointID, unlock)
}

// beginCall begins a call about the endpoint. The result ends the call and then unlocks its addresses.
func (d *Driver) beginCall(endpointID string, unlock func()) func() {
	end := d.claims.beginCall(endpointID)
	return func() {
		end()
		unlock()
	}
}

// bindAddress binds a locked address to the endpoint. Without a claim, as after a restart of the driver, it assigns the
// address again.
func (d *Driver) bindAddress(ctx context.Context, endpointID string, address netip.Addr) error {
	if d.claims.bind(address, endpointID) {
		return nil
	}
	err := d.reassign(ctx, endpointID, address)
	if errors.Is(err, errAddressLost) && !d.Interfaces.Exists(workload.HostInterface(endpointID)) {
		// The engine now stops the start and releases the address, which belongs to another container.
		d.addStaleReleases(address, 1)
	}
	return err
}

func (d *Driver) reassign(ctx context.Context, endpointID string, address netip.Addr) error {
	found, err := d.lookUpOwner(ctx, address)
	if err != nil {
		return err
	}
	attached := d.Interfaces.Exists(workload.HostInterface(endpointID))
	other := found.endpoint
	if other != nil && other.Spec.Endpoint == endpointID {
		other = nil
		// The call is repeated after the driver was killed during it. The endpoint must not be stored while its address is
		// released, because another host may get the address then.
		if !attached {
			if err := d.deleteEndpoint(ctx, endpointID); err != nil {
				return err
			}
		}
	}
	switch {
	case other != nil && (other.Spec.Node != d.Node || d.Interfaces.Exists(other.Spec.InterfaceName) ||
		d.Starting(other.Spec.Endpoint)):
		return addressLost(address, containerOf(other)+" on host "+other.Spec.Node)
	case found.allocated && found.node != d.Node:
		return addressLost(address, "host "+orUnknown(found.node))
	case found.allocated && !strings.HasPrefix(found.handle, HandlePrefix):
		return addressLost(address, "handle "+orUnknown(found.handle)+" on this host")
	}
	if other != nil {
		if err := d.Remover.Remove(ctx, other.Spec.Endpoint); err != nil {
			return err
		}
		d.addStaleReleases(address, 1)
	}
	// A running container keeps its allocation: its address was bound before it got its interface.
	if found.allocated && attached {
		d.claims.add(address)
		d.claims.bind(address, endpointID)
		return nil
	}
	if found.allocated {
		if err := d.releaseUnused(ctx, address, found.handle); err != nil {
			return err
		}
	}
	var handles []string
	defer func() { d.endAssign(handles) }()
	err = d.StartRetry.Do(ctx, "assign address "+address.String()+" again", func(ctx context.Context) error {
		handle, err := d.assignIP(ctx, address)
		handles = append(handles, handle)
		return err
	})
	if datastore.IsAlreadyExists(err) {
		// Either an earlier attempt of this call has it, whose response was lost, or another host.
		found, err = d.lookUpOwner(ctx, address)
		if err == nil && !slices.Contains(handles, found.handle) {
			return addressLost(address, "host "+orUnknown(found.node))
		}
	}
	if err != nil {
		return err
	}
	d.Log.Info("assigned the address of a new endpoint again", "address", address, "endpoint", endpointID)
	d.claims.add(address)
	d.claims.bind(address, endpointID)
	return nil
}

// deleteEndpoint deletes the WorkloadEndpoint of a container that is starting.
func (d *Driver) deleteEndpoint(ctx context.Context, endpointID string) error {
	return d.StartRetry.Do(ctx, "delete the container's WorkloadEndpoint", func(ctx context.Context) error {
		return d.Endpoints.Delete(ctx, endpointID)
	})
}

// errAddressLost is returned for an endpoint whose address belongs to another container.
var errAddressLost = errors.New("start the container again")

func addressLost(address netip.Addr, owner string) error {
	return fmt.Errorf("address %s no longer belongs to this container: it was released while the driver or etcd was "+
		"unavailable, and %s has it now: %w", address, owner, errAddressLost)
}

// owner is the owner of an address in IPAM and among the WorkloadEndpoints.
type owner struct {
	allocated    bool
	handle, node string
	// endpoint has the address, on any node. It is nil if there is none.
	endpoint *libapi.WorkloadEndpoint
}

func (d *Driver) lookUpOwner(ctx context.Context, address netip.Addr) (owner, error) {
	var found owner
	err := d.StartRetry.Do(ctx, "look up the owner of address "+address.String(), func(ctx context.Context) (err error) {
		found = owner{}
		attributes, handle, err := d.Addresses.GetAssignmentAttributes(ctx, cnet.MustParseIP(address.String()))
		switch {
		case err == nil:
			found = owner{allocated: true, handle: deref(handle), node: attributes[calico.AttributeNode]}
		case !datastore.IsNotFound(err):
			return err
		}
		found.endpoint, err = d.Endpoints.WithAddress(ctx, address)
		return err
	})
	return found, err
}

// releaseUnused releases an address that nothing uses, so that it can be assigned again. Keeping the allocation would not be
// safe, because an earlier release without a response may still be in progress in etcd.
func (d *Driver) releaseUnused(ctx context.Context, address netip.Addr, handle string) error {
	err := d.StartRetry.Do(ctx, "release unused address "+address.String(), func(ctx context.Context) error {
		_, _, err := d.Addresses.ReleaseIPs(ctx, calico.ReleaseOptions{Address: address.String(), Handle: handle})
		return err
	})
	if datastore.IsConflict(err) {
		// It was released and assigned again in between.
		return nil
	}
	return err
}
