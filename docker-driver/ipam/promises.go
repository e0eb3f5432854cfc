package ipam

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// promised is how long a pool that RequestPool answered with may be without its network. Engines go on at once.
const promised = time.Minute

// promises are the pools that were handed out for networks which are not on record yet.
type promises struct {
	mutex sync.Mutex
	since map[netip.Prefix][]time.Time
}

// add notes that the pool was handed out, and returns how many networks are waited for on it.
func (p *promises) add(cidr netip.Prefix) int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if p.since == nil {
		p.since = map[netip.Prefix][]time.Time{}
	}
	p.since[cidr] = append(p.open(cidr), time.Now())
	return len(p.since[cidr])
}

// done notes that one of the networks is on record, or is not coming.
func (p *promises) done(cidr netip.Prefix) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if open := p.open(cidr); len(open) > 1 {
		p.since[cidr] = open[1:]
	} else {
		delete(p.since, cidr)
	}
}

// open are the times of the promises that still count.
func (p *promises) open(cidr netip.Prefix) []time.Time {
	return slices.DeleteFunc(p.since[cidr], func(since time.Time) bool { return time.Since(since) > promised })
}
