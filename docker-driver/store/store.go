// Package store remembers, per host, what Docker tells a driver only once: which networks there are, on which pools,
// with which options, and which ports are published for which endpoint; and which addresses may be released by containers
// that have lost them. It owes durability: a record that Put
// returned for survives the loss of power.
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	"calico-lab/docker-driver/datastore"
)

// Network is a Docker network of this host.
type Network struct {
	Pools datastore.Pools
	// MTU of the container's interface; 0 leaves it to the driver.
	MTU int `json:",omitempty"`
	// Index is the lowest number that no other network of this host has. It makes next hops of networks differ,
	// because a container in two networks cannot have the same next hop on both of its interfaces.
	Index int
}

// Port is one published port.
type Port struct {
	Protocol string
	// HostAddress is the address of this host that the port is published on; the zero address means any.
	HostAddress   netip.Addr
	HostPort      uint16
	Container     netip.Addr
	ContainerPort uint16
}

// At is where the port is on this host.
func (p Port) At() netip.AddrPort {
	switch {
	case p.HostAddress.IsValid():
		return netip.AddrPortFrom(p.HostAddress, p.HostPort)
	case p.Container.Is4():
		return netip.AddrPortFrom(netip.IPv4Unspecified(), p.HostPort)
	default:
		return netip.AddrPortFrom(netip.IPv6Unspecified(), p.HostPort)
	}
}

// Collides tells whether both are one port of this host.
func (p Port) Collides(other Port) bool {
	one, two := p.At(), other.At()
	return p.Protocol == other.Protocol && one.Port() == two.Port() && one.Addr().Is4() == two.Addr().Is4() &&
		(one.Addr() == two.Addr() || one.Addr().IsUnspecified() || two.Addr().IsUnspecified())
}

type state struct {
	Networks  map[string]Network
	Published map[string][]Port
	Owed      map[netip.Addr]int `json:",omitempty"`
}

// Store is the file and what it holds. It is safe for concurrent use.
type Store struct {
	path  string
	mutex sync.Mutex
	state state
}

// Open reads the store in the folder, which it makes when there is none.
func Open(folder string) (*Store, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	s := &Store{path: filepath.Join(folder, "state.json")}
	content, err := os.ReadFile(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read the networks of this host: %w", err)
	default:
		if err := json.Unmarshal(content, &s.state); err != nil {
			return nil, fmt.Errorf("%s is damaged (%w): move it away; networks are then known again by their addresses, "+
				"and published ports when their containers start", s.path, err)
		}
	}
	if s.state.Networks == nil {
		s.state.Networks = map[string]Network{}
	}
	if s.state.Published == nil {
		s.state.Published = map[string][]Port{}
	}
	return s, nil
}

// Network returns the network's record.
func (s *Store) Network(id string) (Network, bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	network, known := s.state.Networks[id]
	return network, known
}

// Networks returns a copy of all records.
func (s *Store) Networks() map[string]Network {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return maps.Clone(s.state.Networks)
}

// PutNetwork records the network and returns the record with its index, which a network keeps.
func (s *Store) PutNetwork(id string, network Network) (Network, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if old, known := s.state.Networks[id]; known {
		network.Index = old.Index
	} else {
		network.Index = s.freeIndex()
	}
	next := s.state
	next.Networks = maps.Clone(s.state.Networks)
	next.Networks[id] = network
	return network, s.replace(next)
}

// DeleteNetwork forgets the network; one that is not there is no error.
func (s *Store) DeleteNetwork(id string) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if _, known := s.state.Networks[id]; !known {
		return nil
	}
	next := s.state
	next.Networks = maps.Clone(s.state.Networks)
	delete(next.Networks, id)
	return s.replace(next)
}

// Published returns the published ports by endpoint.
func (s *Store) Published() map[string][]Port {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return maps.Clone(s.state.Published)
}

// SetPublished records the endpoint's published ports; none forgets the endpoint.
func (s *Store) SetPublished(endpoint string, ports []Port) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if _, known := s.state.Published[endpoint]; !known && len(ports) == 0 {
		return nil
	}
	next := s.state
	next.Published = maps.Clone(s.state.Published)
	if len(ports) == 0 {
		delete(next.Published, endpoint)
	} else {
		next.Published[endpoint] = ports
	}
	return s.replace(next)
}

// Owed returns how many releases of the address are expected of containers that do not have it any more.
func (s *Store) Owed(address netip.Addr) int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.state.Owed[address]
}

// SetOwed records that number; 0 forgets the address.
func (s *Store) SetOwed(address netip.Addr, count int) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	next := s.state
	next.Owed = maps.Clone(s.state.Owed)
	if next.Owed == nil {
		next.Owed = map[netip.Addr]int{}
	}
	if next.Owed[address] = count; count == 0 {
		delete(next.Owed, address)
	}
	return s.replace(next)
}

func (s *Store) freeIndex() int {
	used := map[int]bool{}
	for _, network := range s.state.Networks {
		used[network.Index] = true
	}
	index := 0
	for used[index] {
		index++
	}
	return index
}

// replace makes next the state on disk, then in memory: file, fsync, rename, fsync of the folder.
func (s *Store) replace(next state) error {
	content, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return fmt.Errorf("write down the networks of this host: %w", err)
	}
	if err := writeDurably(s.path, content); err != nil {
		return fmt.Errorf("keep the networks of this host in %s: %w", s.path, err)
	}
	s.state = next
	return nil
}

func writeDurably(path string, content []byte) error {
	fresh := path + ".new"
	file, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
