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

// repeats is how long an engine repeats a call that got no answer (30 s in pkg/plugins/client.go).
const repeats = 30 * time.Second

// settling is how long an address that a container asked for by --ip is refused to another container that asks for it,
// while no call about it is under way. An engine goes on at once, unless it waits for an address of the other family.
const settling = 15 * time.Second

// claims are the addresses that containers of this host are getting. Docker has an endpoint only after the address is
// assigned and the endpoint is stored; until then nothing in the datastore tells such an address from one that a crash
// left behind. Two rules keep an address from a second container:
//
//   - Reconciliation releases no claimed address. A claim lasts while calls about the address are under way, and for
//     a lifetime after each of them.
//   - No rule about time is certain, because an engine can be slow and a driver can be killed. So CreateEndpoint accepts
//     an address without a claim only if IPAM has it for this host, no other endpoint has it, and IPAM has assigned it
//     anew: after that write, no release that is still under way in etcd can change the address's block.
type claims struct {
	mutex sync.Mutex
	// trying are the handles of assignments that are under way.
	trying map[string]bool
	// held are the claims by address.
	held map[netip.Addr]*claim
}

type claim struct {
	// endpoint was created with the address; it is empty until then.
	endpoint string
	// calls is how many calls about the endpoint are under way.
	calls int
	// since is when the last call ended.
	since time.Time
}

// within tells whether a call is under way, or ended less than the limit ago.
func (c *claim) within(limit time.Duration) bool {
	return c != nil && (c.calls > 0 || time.Since(c.since) <= limit)
}

// try notes that an address is being assigned by the handle.
func (c *claims) try(handle string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.trying == nil {
		c.trying = map[string]bool{}
	}
	c.trying[handle] = true
}

// tried notes that no assignment by the handles is under way any more. An address that one of them has is either claimed
// or left behind.
func (c *claims) tried(handles []string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, handle := range handles {
		delete(c.trying, handle)
	}
}

// add claims an address that has been assigned just now.
func (c *claims) add(address netip.Addr) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.held == nil {
		c.held = map[netip.Addr]*claim{}
	}
	c.held[address] = &claim{since: time.Now()}
}

// drop ends the claim.
func (c *claims) drop(address netip.Addr) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	delete(c.held, address)
}

// use gives a claimed address to the endpoint, and tells whether that was possible: one claim is good for one endpoint.
func (c *claims) use(address netip.Addr, endpoint string) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	held := c.held[address]
	if held == nil || held.endpoint != "" && held.endpoint != endpoint {
		return false
	}
	held.endpoint = endpoint
	return true
}

// of tells whether the endpoint has the claims of all these addresses.
func (c *claims) of(endpoint string, addresses []netip.Addr) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return !slices.ContainsFunc(addresses, func(address netip.Addr) bool {
		held := c.held[address]
		return held == nil || held.endpoint != endpoint
	})
}

// has tells whether the address is claimed: a call about it was answered less than the limit ago, or is under way.
func (c *claims) has(address netip.Addr, limit time.Duration) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.held[address].within(limit)
}

// call notes that a call about the endpoint is under way, and returns what ends it.
func (c *claims) call(endpoint string) (end func()) {
	var counted []*claim
	c.mutex.Lock()
	defer c.mutex.Unlock()
	for _, held := range c.held {
		if held.endpoint == endpoint {
			held.calls++
			counted = append(counted, held)
		}
	}
	return func() {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		for _, held := range counted {
			held.calls--
			held.since = time.Now()
		}
	}
}

// Owed counts releases of an address that are expected of containers of this host that do not have it any more. The
// count outlives the driver, because the release may come to the next one.
type Owed interface {
	Owed(address netip.Addr) int
	SetOwed(address netip.Addr, count int) error
}

// owe notes that a container that does not have the address any more may yet release it. The address must be locked.
func (d *Driver) owe(address netip.Addr, by int) {
	if err := d.Owed.SetOwed(address, d.Owed.Owed(address)+by); err != nil {
		d.Log.Warn("a driver after this one would not know whose address is released", "address", address, "error", err)
	}
}

// Claimed tells whether a container of this host may be getting the address of the allocation.
func (d *Driver) Claimed(allocation datastore.Allocation) bool {
	d.claims.mutex.Lock()
	trying := d.claims.trying[allocation.Handle]
	d.claims.mutex.Unlock()
	return trying || d.claims.has(allocation.Address, d.lifetime())
}

// Starting tells whether a container of this host may be getting the endpoint, which Docker need not have yet.
func (d *Driver) Starting(endpointID string) bool {
	d.claims.mutex.Lock()
	defer d.claims.mutex.Unlock()
	for _, held := range d.claims.held {
		if held.endpoint == endpointID && held.within(d.lifetime()) {
			return true
		}
	}
	return false
}

// Left ends the claims of an endpoint that Docker deletes.
func (d *Driver) Left(endpointID string) {
	d.claims.mutex.Lock()
	defer d.claims.mutex.Unlock()
	for address, held := range d.claims.held {
		if held.endpoint == endpointID {
			delete(d.claims.held, address)
		}
	}
}

// lifetime is how long a claim lasts after a call: the engine may wait for an address of the other family, and repeats a
// call that the driver was killed in.
func (d *Driver) lifetime() time.Duration { return d.Take.Limit + repeats }

// Secure makes sure that the addresses are those of this endpoint and of no other one, and keeps them so until end is
// called. It fails if an address has gone to another container.
func (d *Driver) Secure(ctx context.Context, endpointID string, addresses []netip.Addr) (end func(), err error) {
	unlock := d.lock(addresses)
	for _, address := range addresses {
		if err := d.secure(ctx, endpointID, address); err != nil {
			unlock()
			return nil, err
		}
	}
	return d.until(endpointID, unlock), nil
}

// Joining keeps the addresses of an endpoint that a container joins until end is called. Where it is not certain that
// nobody has removed the endpoint before that, the caller has to look the endpoint up again.
func (d *Driver) Joining(endpointID string, addresses []netip.Addr) (certain bool, end func()) {
	unlock := d.lock(addresses)
	return d.claims.of(endpointID, addresses), d.until(endpointID, unlock)
}

// until returns what ends a call about the endpoint and then unlocks its addresses.
func (d *Driver) until(endpointID string, unlock func()) func() {
	ended := d.claims.call(endpointID)
	return func() {
		ended()
		unlock()
	}
}

// lock waits for the turns of the addresses, in the same order everywhere, and returns what ends them.
func (d *Driver) lock(addresses []netip.Addr) func() {
	var ends []func()
	for _, address := range slices.SortedFunc(slices.Values(addresses), netip.Addr.Compare) {
		ends = append(ends, d.turns.take(address))
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

// secure gives the address to the endpoint. Without a claim, as after a restart of the driver, it has to be assigned anew.
func (d *Driver) secure(ctx context.Context, endpointID string, address netip.Addr) error {
	if d.claims.use(address, endpointID) {
		return nil
	}
	err := d.secureAnew(ctx, endpointID, address)
	if errors.Is(err, errLost) && !d.Attached(workload.HostInterface(endpointID)) {
		// The engine gives up the container, and releases an address that is not the container's.
		d.owe(address, 1)
	}
	return err
}

func (d *Driver) secureAnew(ctx context.Context, endpointID string, address netip.Addr) error {
	var found holding
	err := d.Take.Do(ctx, "ask who has address "+address.String(), func(ctx context.Context) (err error) {
		found, err = d.holding(ctx, address)
		return err
	})
	if err != nil {
		return err
	}
	other := found.endpoint
	if other != nil && other.Spec.Endpoint == endpointID {
		other = nil
	}
	switch {
	case other != nil && (other.Spec.Node != d.Node || d.Attached(other.Spec.InterfaceName) ||
		d.Starting(other.Spec.Endpoint)):
		return lost(address, holder(other)+" on host "+other.Spec.Node)
	case found.allocated && found.node != d.Node:
		return lost(address, "host "+orUnknown(found.node))
	case found.allocated && !strings.HasPrefix(found.handle, HandlePrefix):
		return lost(address, "handle "+orUnknown(found.handle)+" on this host")
	}
	if other != nil {
		if err := d.Remove(ctx, other.Spec.Endpoint); err != nil {
			return err
		}
		d.owe(address, 1)
	}
	// A container that runs keeps its allocation: it went through this before it got its interface.
	if found.allocated && d.Attached(workload.HostInterface(endpointID)) {
		d.claims.add(address)
		d.claims.use(address, endpointID)
		return nil
	}
	if found.allocated {
		if err := d.free(ctx, address, found.handle); err != nil {
			return err
		}
	}
	var handles []string
	defer func() { d.triedMoreThanOnce(handles) }()
	err = d.Take.Do(ctx, "assign address "+address.String()+" anew", func(ctx context.Context) error {
		handle, err := d.assign(ctx, address)
		handles = append(handles, handle)
		return err
	})
	if datastore.Present(err) {
		// By an earlier try of this call, of which the answer was lost, or by somebody else.
		err = d.Take.Do(ctx, "ask who has address "+address.String(), func(ctx context.Context) (err error) {
			found, err = d.holding(ctx, address)
			return err
		})
		if err == nil && !slices.Contains(handles, found.handle) {
			return lost(address, "host "+orUnknown(found.node))
		}
	}
	if err != nil {
		return err
	}
	d.Log.Info("assigned an address anew to an endpoint that is created with it", "address", address,
		"endpoint", endpointID)
	d.claims.add(address)
	d.claims.use(address, endpointID)
	return nil
}

// errLost is why a container does not start whose address somebody else has got.
var errLost = errors.New("start the container again")

// lost is the error of a container whose address somebody else has got.
func lost(address netip.Addr, who string) error {
	return fmt.Errorf("address %s is not this container's any more: it was released while the driver or etcd was out of "+
		"reach, and %s has it now: %w", address, who, errLost)
}

// holding is who has an address.
type holding struct {
	allocated    bool
	handle, node string
	// endpoint of any node that has the address; nil if there is none.
	endpoint *libapi.WorkloadEndpoint
}

// holding asks IPAM and the endpoints who has the address.
func (d *Driver) holding(ctx context.Context, address netip.Addr) (holding, error) {
	var found holding
	attributes, handle, err := d.Addresses.GetAssignmentAttributes(ctx, cnet.MustParseIP(address.String()))
	switch {
	case err == nil:
		found = holding{allocated: true, handle: deref(handle), node: attributes[calico.AttributeNode]}
	case !datastore.Absent(err):
		return found, err
	}
	found.endpoint, err = d.Endpoints.WithAddress(ctx, address)
	return found, err
}

// free releases the address from a handle that nothing uses any more, so that it can be assigned anew. Taking it over as
// it is would not do: a release that got no answer may still be under way in etcd, and be carried out afterwards.
func (d *Driver) free(ctx context.Context, address netip.Addr, handle string) error {
	err := d.Take.Do(ctx, "release address "+address.String()+" that nothing uses", func(ctx context.Context) error {
		_, _, err := d.Addresses.ReleaseIPs(ctx, calico.ReleaseOptions{Address: address.String(), Handle: handle})
		return err
	})
	if datastore.Conflict(err) {
		// It is released, and allocated anew.
		return nil
	}
	return err
}
