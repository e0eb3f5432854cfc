// Package store keeps this host's state that neither Docker nor Calico's datastore returns later: the networks with their
// pools and options, the published ports of each endpoint, and the expected stale releases of addresses. A change is on
// disk when the function returns, also after a power failure.
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
	"slices"
	"sync"

	"calico-lab/docker-driver/datastore"
)

// Network is a Docker network of this host.
type Network struct {
	Pools datastore.Pools
	// MTU of the containers' interfaces; 0 means the driver's default.
	MTU int `json:",omitempty"`
	// Index is the lowest number that no other network of this host has. The next hop of the network is derived from it,
	// because a container in two networks cannot have the same next hop on both interfaces.
	Index int
}

// Port is one published port.
type Port struct {
	Protocol string
	// HostAddress is this host's address on which the port is published; the zero address means all addresses.
	HostAddress   netip.Addr
	HostPort      uint16
	Container     netip.Addr
	ContainerPort uint16
}

// At returns the address and port on this host.
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

// Collides reports whether both ports are the same port of this host.
func (p Port) Collides(other Port) bool {
	one, two := p.At(), other.At()
	return p.Protocol == other.Protocol && one.Port() == two.Port() && one.Addr().Is4() == two.Addr().Is4() &&
		(one.Addr() == two.Addr() || one.Addr().IsUnspecified() || two.Addr().IsUnspecified())
}

type state struct {
	Networks      map[string]Network
	Published     map[string][]Port
	StaleReleases map[netip.Addr]int `json:",omitempty"`
}

// Store is the state file and its content. It is safe for concurrent use.
type Store struct {
	path  string
	mutex sync.Mutex
	state state
}

// Open reads the state file in the folder. It creates the folder if necessary.
func Open(folder string) (*Store, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("create the state folder: %w", err)
	}
	s := &Store{path: filepath.Join(folder, "state.json")}
	content, err := os.ReadFile(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read the state file: %w", err)
	default:
		if err := json.Unmarshal(content, &s.state); err != nil {
			return nil, fmt.Errorf("%s is damaged (%w): move it to another folder; the driver then rebuilds the networks "+
				"from their containers' addresses, and the published ports when the containers start", s.path, err)
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

// Networks returns all networks by ID.
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

// DeleteNetwork deletes the network's record. A missing record is no error.
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

// NetworkIDs returns the IDs of all networks.
func (s *Store) NetworkIDs() []string { return slices.Collect(maps.Keys(s.Networks())) }

// UsesPool reports whether a network uses the pool.
func (s *Store) UsesPool(cidr netip.Prefix) bool {
	for _, network := range s.Networks() {
		if slices.ContainsFunc(network.Pools, func(pool datastore.Pool) bool { return pool.CIDR == cidr }) {
			return true
		}
	}
	return false
}

// Published returns the published ports by endpoint.
func (s *Store) Published() map[string][]Port {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return maps.Clone(s.state.Published)
}

// SetPublished records the endpoint's published ports. Without ports it deletes the endpoint's record.
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

// StaleReleases returns how many releases of the address are expected from containers that no longer have it.
func (s *Store) StaleReleases(address netip.Addr) int {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.state.StaleReleases[address]
}

// SetStaleReleases records that number. 0 deletes the record.
func (s *Store) SetStaleReleases(address netip.Addr, count int) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	next := s.state
	next.StaleReleases = maps.Clone(s.state.StaleReleases)
	if next.StaleReleases == nil {
		next.StaleReleases = map[netip.Addr]int{}
	}
	if next.StaleReleases[address] = count; count == 0 {
		delete(next.StaleReleases, address)
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

// replace writes next to disk (file, fsync, rename, fsync of the folder), then sets it in memory.
func (s *Store) replace(next state) error {
	content, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the state: %w", err)
	}
	if err := writeDurably(s.path, content); err != nil {
		return fmt.Errorf("write the state file %s: %w", s.path, err)
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
