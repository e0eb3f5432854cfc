package ipam

import (
	"net/netip"
	"slices"
	"sync"
)

// addressLocks serialises the calls about an address, so that a call that releases it and a call that assigns it see each
// other's result.
type addressLocks struct {
	mutex sync.Mutex
	// locked has a channel for each locked address. It is closed when the address is unlocked.
	locked map[netip.Addr]chan struct{}
}

// lock waits until the address is unlocked, and locks it.
func (l *addressLocks) lock(address netip.Addr) (unlock func()) {
	for {
		l.mutex.Lock()
		unlocked, busy := l.locked[address]
		if !busy {
			break
		}
		l.mutex.Unlock()
		<-unlocked
	}
	defer l.mutex.Unlock()
	if l.locked == nil {
		l.locked = map[netip.Addr]chan struct{}{}
	}
	unlocked := make(chan struct{})
	l.locked[address] = unlocked
	return func() {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		delete(l.locked, address)
		close(unlocked)
	}
}

// lockAll locks the addresses in ascending order, so that two calls cannot block each other.
func (l *addressLocks) lockAll(addresses []netip.Addr) (unlock func()) {
	var unlocks []func()
	for _, address := range slices.SortedFunc(slices.Values(addresses), netip.Addr.Compare) {
		unlocks = append(unlocks, l.lock(address))
	}
	return func() {
		for _, unlock := range unlocks {
			unlock()
		}
	}
}
