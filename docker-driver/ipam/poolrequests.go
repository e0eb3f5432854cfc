package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"calico-lab/docker-driver/datastore"
)

// maxRequests is the maximum number of RequestPool calls for a pool without a CreateNetwork. Above it Docker is
// rejecting the pool: for a pool requested by name, engines compare the CIDR with this host's name servers and routes
// (the 20.10 line with all routes, later engines with routes of scope link, current ones with none). If they overlap,
// the engine requests a pool again, without a limit. No call contains the engine's version.
const maxRequests = 20

// requestLifetime is how long a change of the count is valid. Engines make the next call at once.
const requestLifetime = time.Minute

// countRequest counts a RequestPool call. It returns an error if the engine keeps rejecting the pool.
func (d *Driver) countRequest(pool datastore.Pool, request poolRequest) error {
	d.requests.add(pool.CIDR, 1)
	if request.cidr.IsValid() || d.requests.count(pool.CIDR) <= maxRequests {
		return nil
	}
	d.requests.add(pool.CIDR, -1)
	return fmt.Errorf("pool %s: Docker rejects the pool and requests it again and again, because a route or a "+
		"name server of this host lies in it: add --subnet %s", pool, pool.CIDR)
}

// NetworkCreated records that a network on the pool is stored.
func (d *Driver) NetworkCreated(cidr netip.Prefix) { d.requests.add(cidr, -1) }

// NetworkDeleted records that a network on the pool is no longer stored. Engines call ReleasePool before DeleteNetwork, and
// that ReleasePool has already been counted as one for a network that was not created.
func (d *Driver) NetworkDeleted(cidr netip.Prefix) { d.requests.add(cidr, 1) }

// poolRequests counts by pool the RequestPool calls without a CreateNetwork yet.
type poolRequests struct {
	mutex   sync.Mutex
	changes map[netip.Prefix][]change
}

// change is a change of the count by 1 or -1.
type change struct {
	at time.Time
	by int
}

// add cancels an opposite change, or else adds this one.
func (p *poolRequests) add(cidr netip.Prefix, by int) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	changes := p.valid(cidr)
	if opposite := slices.IndexFunc(changes, func(each change) bool { return each.by == -by }); opposite >= 0 {
		changes = slices.Delete(changes, opposite, opposite+1)
	} else {
		changes = append(changes, change{at: time.Now(), by: by})
	}
	if p.changes == nil {
		p.changes = map[netip.Prefix][]change{}
	}
	p.changes[cidr] = changes
}

// count returns the sum of the valid changes.
func (p *poolRequests) count(cidr netip.Prefix) int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	count := 0
	for _, each := range p.valid(cidr) {
		count += each.by
	}
	return count
}

// valid returns the changes that are not older than requestLifetime.
func (p *poolRequests) valid(cidr netip.Prefix) []change {
	return slices.DeleteFunc(slices.Clone(p.changes[cidr]), func(each change) bool {
		return time.Since(each.at) > requestLifetime
	})
}
