package driver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	libapi "github.com/projectcalico/calico/libcalico-go/lib/apis/v3"
	calico "github.com/projectcalico/calico/libcalico-go/lib/ipam"
	cnet "github.com/projectcalico/calico/libcalico-go/lib/net"
	"github.com/projectcalico/calico/libcalico-go/lib/options"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/driver"
	"calico-lab/docker-driver/engine"
	"calico-lab/docker-driver/link"
	"calico-lab/docker-driver/observe"
	"calico-lab/docker-driver/plugin"
	"calico-lab/docker-driver/publish"
	"calico-lab/docker-driver/store"
	"calico-lab/docker-driver/workload"
)

// This test simulates two containers, reconciliation and faults, and checks that no address is used twice and none is
// leaked. Each request to the datastore and to the engine, and each call of the engine, is a step. A step waits until
// the order of events executes it. The test runs all orders that differ from the default order in a limited number of
// places, and many random orders. Time is simulated by synctest.

// firstAddress is the address that IPAM assigns if it is free.
const firstAddress = "192.168.0.0"

// Context keys: the actor that makes a step, and the generation of the driver process for which it makes the step.
type (
	actorKey      struct{}
	generationKey struct{}
)

// step is a request or a call that waits for its execution.
type step struct {
	name string
	do   func()
	// write means that the step changes the datastore: its response can be lost, and its execution can be delayed.
	write    bool
	executed chan struct{}
	// noResponse means that the step gets no response any more.
	noResponse bool
}

// simulation is one host with its datastore and engine, in one order of events.
type simulation struct {
	*fake
	records *store.Store
	journal *plugin.Journal

	stepMutex sync.Mutex
	// pending are the waiting steps by actor.
	pending map[string]*step
	// delayed are writes that etcd executes after their callers' time-outs.
	delayed []*step
	// storedLate are the names of endpoints that a delayed write has stored.
	storedLate map[string]bool
	// immediate executes every step at once. ended is closed at the end and ends all waits.
	immediate bool
	ended     chan struct{}

	// generation is the number of the driver process. killed is closed when the process is killed.
	generation int
	killed     chan struct{}
	driver     *driver.Driver
	handlers   map[string]http.Handler
	// reconciling means that a reconciliation is in progress.
	reconciling bool
	// takenByOtherHost means that another host has been assigned the first address.
	takenByOtherHost bool
	restarts         int
	containers       []*container
	// lastActor made the last step.
	lastActor string
	trace     []string
}

// container is a container that Docker starts and removes.
type container struct {
	name, id, requestedIP string
	// running is the container's address. It is invalid while the container does not run.
	running netip.Addr
	ended   bool
	// engineKilled is closed when the engine is killed during the start or the removal.
	engineKilled chan struct{}
	// remove is closed to remove the container.
	remove  chan struct{}
	removed bool
}

// await waits until the step is executed.
func (s *simulation) await(ctx context.Context, name string, write bool, do func()) error {
	actor, _ := ctx.Value(actorKey{}).(string)
	s.stepMutex.Lock()
	if generation, bound := ctx.Value(generationKey{}).(int); bound && generation != s.generation {
		s.stepMutex.Unlock()
		<-s.ended
		return errEtcdDown
	}
	if s.immediate {
		do()
		s.stepMutex.Unlock()
		return nil
	}
	waiting := &step{name: name, do: do, write: write, executed: make(chan struct{})}
	s.pending[actor] = waiting
	s.stepMutex.Unlock()
	select {
	case <-waiting.executed:
		return nil
	case <-ctx.Done():
	case <-s.ended:
	}
	s.stepMutex.Lock()
	defer s.stepMutex.Unlock()
	if s.pending[actor] == waiting {
		delete(s.pending, actor)
	}
	return errEtcdDown
}

// request makes a step of a request with a response and an error.
func request[T any](
	ctx context.Context, s *simulation, name string, write bool, do func() (T, error),
) (response T, err error) {
	var failed error
	if err := s.await(ctx, name, write, func() { response, failed = do() }); err != nil {
		var none T
		return none, err
	}
	return response, failed
}

type stepAddresses struct {
	fakeAddresses
	simulation *simulation
}

func (s stepAddresses) AssignIP(ctx context.Context, args calico.AssignIPArgs) error {
	_, err := request(ctx, s.simulation, "assign", true, func() (any, error) {
		return nil, s.fakeAddresses.AssignIP(ctx, args)
	})
	return err
}

func (s stepAddresses) AutoAssign(
	ctx context.Context, args calico.AutoAssignArgs,
) (v4, v6 *calico.IPAMAssignments, err error) {
	v4, err = request(ctx, s.simulation, "assign next", true, func() (*calico.IPAMAssignments, error) {
		v4, _, err := s.fakeAddresses.AutoAssign(ctx, args)
		return v4, err
	})
	return v4, nil, err
}

func (s stepAddresses) ReleaseIPs(
	ctx context.Context, ips ...calico.ReleaseOptions,
) ([]cnet.IP, []calico.ReleaseOptions, error) {
	_, err := request(ctx, s.simulation, "release", true, func() (any, error) {
		_, _, err := s.fakeAddresses.ReleaseIPs(ctx, ips...)
		return nil, err
	})
	return nil, nil, err
}

func (s stepAddresses) GetAssignmentAttributes(ctx context.Context, ip cnet.IP) (map[string]string, *string, error) {
	var handle *string
	attributes, err := request(ctx, s.simulation, "read assignment", false, func() (map[string]string, error) {
		attributes, id, err := s.fakeAddresses.GetAssignmentAttributes(ctx, ip)
		handle = id
		return attributes, err
	})
	return attributes, handle, err
}

type stepEndpoints struct {
	fakeEndpoints
	simulation *simulation
}

func (s stepEndpoints) Create(
	ctx context.Context, e *libapi.WorkloadEndpoint, o options.SetOptions,
) (*libapi.WorkloadEndpoint, error) {
	return request(ctx, s.simulation, "create endpoint", true, func() (*libapi.WorkloadEndpoint, error) {
		return s.fakeEndpoints.Create(ctx, e, o)
	})
}

func (s stepEndpoints) Update(
	ctx context.Context, e *libapi.WorkloadEndpoint, o options.SetOptions,
) (*libapi.WorkloadEndpoint, error) {
	return request(ctx, s.simulation, "update endpoint", true, func() (*libapi.WorkloadEndpoint, error) {
		updated, err := s.fakeEndpoints.Update(ctx, e, o)
		if err == nil {
			delete(s.simulation.storedLate, e.Name)
		}
		return updated, err
	})
}

func (s stepEndpoints) Delete(
	ctx context.Context, namespace, name string, o options.DeleteOptions,
) (*libapi.WorkloadEndpoint, error) {
	return request(ctx, s.simulation, "delete endpoint", true, func() (*libapi.WorkloadEndpoint, error) {
		return s.fakeEndpoints.Delete(ctx, namespace, name, o)
	})
}

func (s stepEndpoints) Get(
	ctx context.Context, namespace, name string, o options.GetOptions,
) (*libapi.WorkloadEndpoint, error) {
	return request(ctx, s.simulation, "get endpoint", false, func() (*libapi.WorkloadEndpoint, error) {
		return s.fakeEndpoints.Get(ctx, namespace, name, o)
	})
}

func (s stepEndpoints) List(ctx context.Context, o options.ListOptions) (*libapi.WorkloadEndpointList, error) {
	return request(ctx, s.simulation, "list endpoints", false, func() (*libapi.WorkloadEndpointList, error) {
		return s.fakeEndpoints.List(ctx, o)
	})
}

type stepProfiles struct {
	fakeProfiles
	simulation *simulation
}

func (s stepProfiles) Get(ctx context.Context, name string, o options.GetOptions) (*v3.Profile, error) {
	return request(ctx, s.simulation, "get profile", false, func() (*v3.Profile, error) {
		return s.fakeProfiles.Get(ctx, name, o)
	})
}

type stepAllocations struct{ simulation *simulation }

func (s stepAllocations) Allocations(
	ctx context.Context, node, prefix string,
) ([]datastore.Allocation, map[string]string, error) {
	all, err := request(ctx, s.simulation, "list allocations", false, func() ([]datastore.Allocation, error) {
		all, _, err := s.simulation.fake.Allocations(ctx, node, prefix)
		return all, err
	})
	return all, nil, err
}

func (s stepAllocations) RemoveHandle(context.Context, string, string) error { return nil }

type stepEngine struct{ simulation *simulation }

func (s stepEngine) Endpoints(ctx context.Context, name string) (map[string]engine.Endpoint, []string, error) {
	all, err := request(ctx, s.simulation, "list Docker's endpoints", false, func() (map[string]engine.Endpoint, error) {
		all, _, err := s.simulation.fake.Endpoints(ctx, name)
		return all, err
	})
	return all, []string{"n"}, err
}

// stepLinks are the host's interfaces for one driver process.
type stepLinks struct {
	fakeLinks
	simulation *simulation
	generation int
}

// ifAlive runs do unless the driver process was killed.
func (s stepLinks) ifAlive(do func() error) error {
	s.simulation.stepMutex.Lock()
	if s.generation != s.simulation.generation {
		s.simulation.stepMutex.Unlock()
		<-s.simulation.ended
		return errEtcdDown
	}
	defer s.simulation.stepMutex.Unlock()
	return do()
}

func (s stepLinks) Create(pair link.Pair) error {
	return s.ifAlive(func() error { return s.fakeLinks.Create(pair) })
}

func (s stepLinks) Remove(name string) error {
	return s.ifAlive(func() error { return s.fakeLinks.Remove(name) })
}

func (s stepLinks) Exists(name string) (exists bool) {
	_ = s.ifAlive(func() error {
		exists = s.fakeLinks.Exists(name)
		return nil
	})
	return exists
}

func (s stepLinks) List() (owned map[string]string, err error) {
	err = s.ifAlive(func() (err error) {
		owned, err = s.fakeLinks.List()
		return err
	})
	return owned, err
}

// startDriver starts a driver process, without the memory of the previous one.
func (s *simulation) startDriver() {
	s.generation++
	s.killed = make(chan struct{})
	links := stepLinks{fakeLinks{s.fake}, s, s.generation}
	ports := &publish.Ports{Store: s.records, Run: s.run, HasInterface: links.Exists, Reserve: s.reserve}
	s.driver = driver.New(
		driver.Settings{
			Node: s.node, StartTimeout: 75 * time.Second, CleanupTimeout: 5 * time.Second, RecheckDelay: 10 * time.Second,
			Interval: time.Hour, DefaultMTU: func() int { return 1450 }, Relabel: s.relabel,
		},
		driver.Datastore{
			Pools: fakePools{s.fake}, Profiles: stepProfiles{fakeProfiles{s.fake}, s},
			Endpoints: stepEndpoints{fakeEndpoints{s.fake}, s}, Addresses: stepAddresses{fakeAddresses{s.fake}, s},
			Allocations: stepAllocations{s}, Retry: datastore.Retry{Endpoints: "https://a0:2379"},
		},
		stepEngine{s}, links, s.records, ports, &observe.Status{}, slog.New(slog.DiscardHandler),
	)
	s.handlers = s.driver.Handlers(s.journal)
}

// restartDriver kills the driver process and starts another one. Steps of the killed process are not executed.
func (s *simulation) restartDriver() {
	s.stepMutex.Lock()
	defer s.stepMutex.Unlock()
	for actor, waiting := range s.pending {
		if !strings.HasPrefix(waiting.name, "engine") {
			delete(s.pending, actor)
		}
	}
	close(s.killed)
	s.reconciling = false
	s.restarts++
	s.startDriver()
}

var errEngineKilled = errors.New("the engine was killed")

// call makes a call of the engine. The engine repeats the call if the driver is killed during it.
func (s *simulation) call(c *container, name string, request, response any) error {
	ctx := context.WithValue(context.Background(), actorKey{}, c.name)
	if err := s.await(ctx, "engine calls "+name, false, func() {}); err != nil {
		return errEngineKilled
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	for {
		s.stepMutex.Lock()
		handlers, killed := s.handlers, s.killed
		bound := context.WithValue(ctx, generationKey{}, s.generation)
		s.stepMutex.Unlock()
		recorder := httptest.NewRecorder()
		done := make(chan struct{})
		go func() {
			defer close(done)
			r := httptest.NewRequest(http.MethodPost, "/"+name, bytes.NewReader(body)).WithContext(bound)
			handlers[driver.NetworkName].ServeHTTP(recorder, r)
		}()
		select {
		case <-done:
		case <-killed:
			continue
		case <-c.engineKilled:
			return errEngineKilled
		case <-s.ended:
			return errEngineKilled
		}
		var failed struct{ Err string }
		if err := json.Unmarshal(recorder.Body.Bytes(), &failed); err != nil {
			return err
		}
		if failed.Err != "" {
			return errors.New(failed.Err)
		}
		return json.Unmarshal(recorder.Body.Bytes(), response)
	}
}

// runContainer starts the container and removes it on request, with the same calls as an engine.
func (s *simulation) runContainer(c *container) {
	defer func() {
		s.stepMutex.Lock()
		defer s.stepMutex.Unlock()
		c.ended = true
		c.running = netip.Addr{}
		delete(s.docker, c.id)
	}()
	var address plugin.RequestAddressResponse
	request := plugin.RequestAddressRequest{PoolID: "192.168.0.0/16", Address: c.requestedIP}
	if s.call(c, "IpamDriver.RequestAddress", request, &address) != nil {
		return
	}
	prefix := netip.MustParsePrefix(address.Address)
	release := func() {
		_ = s.call(c, "IpamDriver.ReleaseAddress",
			plugin.ReleaseAddressRequest{PoolID: "192.168.0.0/16", Address: prefix.Addr().String()}, &plugin.Empty{})
	}
	endpoint := plugin.EndpointRequest{NetworkID: "n", EndpointID: c.id}
	err := s.call(c, "NetworkDriver.CreateEndpoint", plugin.CreateEndpointRequest{
		NetworkID: "n", EndpointID: c.id, Interface: &plugin.Interface{Address: address.Address},
	}, &plugin.CreateEndpointResponse{})
	if errors.Is(err, errEngineKilled) {
		return
	}
	if err != nil {
		release()
		return
	}
	// The engine may be slow here too.
	ctx := context.WithValue(context.Background(), actorKey{}, c.name)
	err = s.await(ctx, "engine stores endpoint", false, func() {
		s.docker[c.id] = engine.Endpoint{ID: c.id, NetworkID: "n", IPv4Address: address.Address}
	})
	if err == nil {
		err = s.call(c, "NetworkDriver.Join", plugin.JoinRequest{NetworkID: "n", EndpointID: c.id}, &plugin.JoinResponse{})
	}
	if errors.Is(err, errEngineKilled) {
		return
	}
	if err == nil {
		s.stepMutex.Lock()
		c.running = prefix.Addr()
		s.stepMutex.Unlock()
		select {
		case <-c.remove:
		case <-s.ended:
			return
		}
		s.stepMutex.Lock()
		c.running = netip.Addr{}
		s.stepMutex.Unlock()
		if errors.Is(s.call(c, "NetworkDriver.Leave", endpoint, &plugin.Empty{}), errEngineKilled) {
			return
		}
	}
	s.stepMutex.Lock()
	delete(s.docker, c.id)
	s.stepMutex.Unlock()
	if errors.Is(s.call(c, "NetworkDriver.DeleteEndpoint", endpoint, &plugin.Empty{}), errEngineKilled) {
		return
	}
	release()
}

// reconcile starts a reconciliation.
func (s *simulation) reconcile() {
	s.stepMutex.Lock()
	s.reconciling = true
	generation, reconciler := s.generation, s.driver.Reconciler
	s.stepMutex.Unlock()
	ctx := context.WithValue(context.WithValue(context.Background(), actorKey{}, "reconcile"), generationKey{}, generation)
	go func() {
		_, _ = reconciler.Once(ctx)
		s.stepMutex.Lock()
		defer s.stepMutex.Unlock()
		if generation == s.generation {
			s.reconciling = false
		}
	}()
}

type action struct {
	name string
	do   func()
}

// actions returns the events that are possible now. The first one is the default.
func (s *simulation) actions() []action {
	s.stepMutex.Lock()
	defer s.stepMutex.Unlock()
	sleep := func(d time.Duration) action {
		return action{fmt.Sprint("time ", d), func() { time.Sleep(d) }}
	}
	execute := func(actor string) []action {
		waiting := s.pending[actor]
		if waiting == nil || waiting.noResponse {
			return nil
		}
		name := actor + ": " + waiting.name
		all := []action{{name, func() {
			s.lastActor = actor
			s.execute(actor, waiting)
		}}}
		if waiting.write {
			seen := maps.Clone(s.allocations)
			all = append(all,
				action{name + ", response lost", func() {
					waiting.noResponse = true
					waiting.do()
				}},
				action{name + ", delayed", func() {
					waiting.noResponse = true
					// IPAM's writes fail if the revision of the block has changed.
					onBlock := !strings.Contains(waiting.name, "endpoint")
					s.delayed = append(s.delayed, &step{name: name, do: func() {
						if onBlock && !maps.Equal(seen, s.allocations) {
							return
						}
						before := maps.Clone(s.endpoints)
						waiting.do()
						for stored := range s.endpoints {
							if _, found := before[stored]; !found {
								s.storedLate[stored] = true
							}
						}
					}})
				}})
		}
		return all
	}
	var all []action
	order := []string{"c1", "c2", "reconcile"}
	if i := slices.Index(order, s.lastActor); i >= 0 {
		order = append([]string{s.lastActor}, slices.Delete(order, i, i+1)...)
	}
	if s.lastActor == "reconcile" && s.reconciling && s.pending["reconcile"] == nil {
		all = append(all, sleep(11*time.Second))
	}
	for _, actor := range order {
		all = append(all, execute(actor)...)
	}
	ended := true
	for _, c := range s.containers {
		ended = ended && (c.ended || c.running.IsValid())
	}
	if len(all) == 0 && (!ended || s.reconciling) {
		all = append(all, sleep(9*time.Second))
	}
	if len(all) == 0 && len(s.trace) > 0 {
		all = append(all, action{"end", nil})
	}
	for i, late := range s.delayed {
		all = append(all, action{"delayed write: " + late.name, func() {
			s.delayed = slices.Delete(s.delayed, i, i+1)
			late.do()
		}})
	}
	if !s.reconciling {
		all = append(all, action{"reconcile", func() {
			s.lastActor = "reconcile"
			s.reconcile()
		}})
	}
	all = append(all, sleep(20*time.Second), sleep(2*time.Minute))
	for _, c := range s.containers {
		switch {
		case c.running.IsValid() && !c.removed:
			all = append(all, action{c.name + " is removed", func() {
				s.lastActor, c.removed = c.name, true
				close(c.remove)
			}})
		case !c.ended && !c.removed:
			all = append(all, action{"the engine is killed during a call for " + c.name, func() {
				c.removed = true
				s.stepMutex.Lock()
				defer s.stepMutex.Unlock()
				close(c.engineKilled)
				c.ended = true
				if waiting := s.pending[c.name]; waiting != nil && strings.HasPrefix(waiting.name, "engine") {
					// The engine does not make the call.
					delete(s.pending, c.name)
				}
				delete(s.docker, c.id)
			}})
		}
	}
	if s.restarts < 2 {
		all = append(all, action{"the driver is killed", s.restartDriver})
	}
	if _, taken := s.allocations[netip.MustParseAddr(firstAddress)]; !taken && !s.takenByOtherHost {
		all = append(all, action{"another host is assigned " + firstAddress, func() {
			s.takenByOtherHost = true
			fakeAddresses{s.fake}.allocate(netip.MustParseAddr(firstAddress), "docker-other-host", "a1")
		}})
	}
	return all
}

// execute executes the step and responds.
func (s *simulation) execute(actor string, waiting *step) {
	s.stepMutex.Lock()
	defer s.stepMutex.Unlock()
	waiting.do()
	delete(s.pending, actor)
	close(waiting.executed)
}

// checkInvariants returns an error if a container runs with an address that is not its own or without its WorkloadEndpoint, or
// if a WorkloadEndpoint is stored with an address that is not its own.
func (s *simulation) checkInvariants() error {
	s.stepMutex.Lock()
	defer s.stepMutex.Unlock()
	holders := map[netip.Addr]string{}
	for _, c := range s.containers {
		if !c.running.IsValid() {
			continue
		}
		if other := holders[c.running]; other != "" {
			return fmt.Errorf("%s and %s run with address %s", other, c.name, c.running)
		}
		holders[c.running] = c.name
		if allocation := s.allocations[c.running]; allocation.Node != s.node {
			return fmt.Errorf("%s runs with address %s, which IPAM has allocated to node %q", c.name, c.running, allocation.Node)
		}
		if !slices.ContainsFunc(slices.Collect(maps.Values(s.endpoints)), func(e *libapi.WorkloadEndpoint) bool {
			return e.Spec.Endpoint == c.id
		}) {
			return fmt.Errorf("%s runs without its WorkloadEndpoint", c.name)
		}
	}
	stored := map[netip.Addr]string{}
	for name, endpoint := range s.endpoints {
		// Reconciliation removes an endpoint that etcd has stored after the time-out of the call.
		if _, attached := s.links[endpoint.Spec.InterfaceName]; !attached && s.storedLate[name] {
			continue
		}
		for _, address := range workload.Addresses(endpoint) {
			if other := stored[address]; other != "" {
				return fmt.Errorf("endpoints %s and %s have address %s", other, endpoint.Spec.Endpoint, address)
			}
			stored[address] = endpoint.Spec.Endpoint
			if allocation := s.allocations[address]; allocation.Node != s.node {
				return fmt.Errorf("endpoint %s is stored with address %s, which IPAM has allocated to node %q",
					endpoint.Spec.Endpoint, address, allocation.Node)
			}
		}
	}
	return nil
}

// endAndCheckLeaks ends all faults and containers, reconciles, and returns an error if a resource is leaked.
func (s *simulation) endAndCheckLeaks() error {
	s.stepMutex.Lock()
	s.immediate = true
	for _, late := range s.delayed {
		late.do()
	}
	for _, waiting := range s.pending {
		if !waiting.noResponse {
			waiting.do()
			close(waiting.executed)
		}
	}
	clear(s.pending)
	s.stepMutex.Unlock()
	for _, c := range s.containers {
		if !c.removed {
			close(c.remove)
		}
	}
	for range 3 {
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if err := s.checkInvariants(); err != nil {
			return err
		}
		s.reconcile()
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	maps.DeleteFunc(s.allocations, func(_ netip.Addr, a datastore.Allocation) bool { return a.Node != s.node })
	if len(s.allocations)+len(s.endpoints)+len(s.links) > 0 {
		return fmt.Errorf("leaked: %v %v %v", s.allocations, slices.Collect(maps.Keys(s.endpoints)), s.links)
	}
	return nil
}

// simulate runs one order of events. choose returns the index of the next action.
func simulate(t *testing.T, records *store.Store, journal *plugin.Journal, requestedIPs [2]string,
	choose func([]action) int,
) (trace []string, err error) {
	t.Helper()
	// All orders use the same store.
	for _, address := range []netip.Addr{netip.MustParseAddr(firstAddress), netip.MustParseAddr(firstAddress).Next()} {
		if records.StaleReleases(address) > 0 {
			if err := records.SetStaleReleases(address, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		s := &simulation{
			fake: newFake(), records: records, journal: journal, pending: map[string]*step{}, ended: make(chan struct{}),
			storedLate: map[string]bool{},
		}
		s.networks = []string{"n"}
		pool := v3.IPPool{Spec: v3.IPPoolSpec{CIDR: "192.168.0.0/16"}}
		pool.Name = "netv"
		s.pools = []v3.IPPool{pool}
		s.profiles["netv"] = &v3.Profile{}
		s.startDriver()
		for i, address := range requestedIPs {
			c := &container{
				name: fmt.Sprint("c", i+1), id: strings.Repeat(fmt.Sprint(i+1), 16), requestedIP: address,
				engineKilled: make(chan struct{}), remove: make(chan struct{}),
			}
			s.containers = append(s.containers, c)
			go s.runContainer(c)
		}
		for range 120 {
			synctest.Wait()
			if err = s.checkInvariants(); err != nil {
				break
			}
			all := s.actions()
			next := all[choose(all)]
			s.trace = append(s.trace, next.name)
			if next.do == nil {
				break
			}
			next.do()
		}
		if err == nil {
			err = s.endAndCheckLeaks()
		}
		trace = s.trace
		close(s.ended)
		time.Sleep(time.Hour)
		synctest.Wait()
	})
	return trace, err
}

// openSimulationStore returns a store with the simulation's network, and a journal.
func openSimulationStore(t *testing.T) (*store.Store, *plugin.Journal) {
	t.Helper()
	records, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pool := datastore.Pool{Name: "netv", CIDR: netip.MustParsePrefix("192.168.0.0/16")}
	if _, err := records.PutNetwork("n", store.Network{Pools: datastore.Pools{pool}}); err != nil {
		t.Fatal(err)
	}
	journal, err := plugin.OpenJournal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return records, journal
}

// CreateEndpoint is repeated after the driver was killed, and deletes the endpoint that the killed driver stored. The first
// attempt times out, and etcd executes it when the container runs.
func TestInterleavingsDelayedDelete(t *testing.T) {
	records, journal := openSimulationStore(t)
	order := []string{
		"c1: create endpoint", "the driver is killed", "c1: delete endpoint, delayed", "c1: delete endpoint",
		"c1: create endpoint", "c1: engine calls NetworkDriver.Join", "c1: get endpoint",
		"delayed write: c1: delete endpoint",
	}
	trace, err := simulate(t, records, journal, [2]string{}, func(all []action) int {
		if len(order) == 0 {
			return 0
		}
		next := slices.IndexFunc(all, func(a action) bool { return a.name == order[0] })
		if next < 0 {
			return 0
		}
		order = order[1:]
		return next
	})
	if err != nil || len(order) > 0 {
		t.Errorf("%v, after\n  %s\nnot possible: %s", err, strings.Join(trace, "\n  "), order)
	}
}

func TestInterleavingsAssignAddressOnce(t *testing.T) {
	records, journal := openSimulationStore(t)
	const deviations, randomOrders = 2, 1000
	for name, requestedIPs := range map[string][2]string{
		"next free address":    {"", ""},
		"next free, then --ip": {"", firstAddress},
		"both --ip":            {firstAddress, firstAddress},
	} {
		t.Run(name, func(t *testing.T) {
			orders := 0
			run := func(choose func([]action) int) {
				orders++
				if trace, err := simulate(t, records, journal, requestedIPs, choose); err != nil {
					t.Fatalf("%v, after\n  %s", err, strings.Join(trace, "\n  "))
				}
			}
			// All orders with at most so many actions other than the default: the positions of these actions and the
			// actions.
			var extend func(prefix []int, remaining int)
			extend = func(prefix []int, remaining int) {
				var counts []int
				run(func(all []action) int {
					counts = append(counts, len(all))
					if i := len(counts) - 1; i < len(prefix) {
						return prefix[i]
					}
					return 0
				})
				if remaining == 0 {
					return
				}
				for at := len(prefix); at < len(counts); at++ {
					for choice := 1; choice < counts[at]; choice++ {
						next := append(slices.Clone(prefix), make([]int, at-len(prefix))...)
						extend(append(next, choice), remaining-1)
					}
				}
			}
			extend(nil, deviations)
			for seed := range uint64(randomOrders) {
				source := rand.New(rand.NewPCG(seed, 0))
				run(func(all []action) int {
					if source.IntN(3) > 0 {
						return 0
					}
					return source.IntN(len(all))
				})
			}
			t.Logf("%d orders", orders)
		})
	}
}
