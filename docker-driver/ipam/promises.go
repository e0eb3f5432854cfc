package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"calico-lab/docker-driver/datastore"
)

// unwanted is the highest number of RequestPool calls for a pool without a CreateNetwork. Above it Docker is rejecting the
// pool: of one that was not asked for by its CIDR, engines compare the answer with this host's nameservers and routes (those
// of the 20.10 line with all routes, later ones with those of scope link, the ones of today with none), and ask again without
// end when they overlap. No call tells the driver which engine it is.
const unwanted = 20

// promise notes that the pool is handed out, unless the engine keeps asking and does not take it.
func (d *Driver) promise(pool datastore.Pool, w wish) error {
	d.promises.change(pool.CIDR, 1)
	if w.cidr.IsValid() || d.promises.count(pool.CIDR) <= unwanted {
		return nil
	}
	d.promises.change(pool.CIDR, -1)
	return fmt.Errorf("pool %s: Docker asks for it again and again and does not take it, because a route or a "+
		"nameserver of this host lies in it: add --subnet %s", pool, pool.CIDR)
}

// Created notes that a network that the pool was handed out for is on record.
func (d *Driver) Created(cidr netip.Prefix) { d.promises.change(cidr, -1) }

// Deleted notes that a network is no longer on record. Engines release its pools before, and that call looks like the
// one for a network that was then not created.
func (d *Driver) Deleted(cidr netip.Prefix) { d.promises.change(cidr, 1) }

// promised is how long a change counts. Engines follow a pool up at once.
const promised = time.Minute

// promises count the networks that pools were handed out for and that are not on record yet.
type promises struct {
	mutex   sync.Mutex
	changes map[netip.Prefix][]change
}

// change is by one, up or down.
type change struct {
	at time.Time
	by int
}

// change takes an opposite change back, or else notes this one.
func (p *promises) change(cidr netip.Prefix, by int) {
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

// count returns how many networks are waited for on the pool.
func (p *promises) count(cidr netip.Prefix) int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	count := 0
	for _, each := range p.valid(cidr) {
		count += each.by
	}
	return count
}

// valid are the changes that still count.
func (p *promises) valid(cidr netip.Prefix) []change {
	return slices.DeleteFunc(slices.Clone(p.changes[cidr]), func(each change) bool { return time.Since(each.at) > promised })
}
