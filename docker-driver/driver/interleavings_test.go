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

// These tests run two containers, reconciliation and the faults that can come between them in every order, up to a number
// of switches from one to another, and in many random orders beyond that. Every question to the datastore and to the
// engine, and every call of the engine, is a step that waits until the order has it carried out. Time is that of synctest.

// first is the address that IPAM gives away as long as it is free.
const first = "192.168.0.0"

// Who makes a step, and for which driver.
type (
	actorKey      struct{}
	generationKey struct{}
)

// step waits to be carried out.
type step struct {
	what string
	do   func()
	// changes tells that the step writes, so that its answer can be lost, or it can be late.
	changes  bool
	answered chan struct{}
	// hung tells that no answer comes any more.
	hung bool
}

// world is one host with its datastore and engine, in one order of events.
type world struct {
	*fake
	records *store.Store
	calls   *plugin.Unanswered

	guard   sync.Mutex
	pending map[string]*step
	// late are writes that etcd carries out after their callers have given up.
	late []*step
	// open has every step carried out at once; over ends all that waits.
	open bool
	over chan struct{}

	// generation is that of the driver; killed is closed when it is.
	generation int
	killed     chan struct{}
	whole      *driver.Driver
	handlers   map[string]http.Handler
	// comparing tells that a reconciliation is under way.
	comparing bool
	// elsewhere tells that another host has taken the first address.
	elsewhere  bool
	restarts   int
	containers []*simulated
	// last is who made the last step.
	last  string
	trace []string
}

// simulated is a container as Docker starts and removes it.
type simulated struct {
	name, id, wanted string
	// running is its address; invalid while it does not run.
	running netip.Addr
	ended   bool
	gone    chan struct{}
	remove  chan struct{}
	removed bool
}

// pass waits until the step is carried out.
func (w *world) pass(ctx context.Context, what string, changes bool, do func()) error {
	actor, _ := ctx.Value(actorKey{}).(string)
	w.guard.Lock()
	if generation, bound := ctx.Value(generationKey{}).(int); bound && generation != w.generation {
		w.guard.Unlock()
		<-w.over
		return errDown
	}
	if w.open {
		do()
		w.guard.Unlock()
		return nil
	}
	s := &step{what: what, do: do, changes: changes, answered: make(chan struct{})}
	w.pending[actor] = s
	w.guard.Unlock()
	select {
	case <-s.answered:
		return nil
	case <-ctx.Done():
	case <-w.over:
	}
	w.guard.Lock()
	defer w.guard.Unlock()
	if w.pending[actor] == s {
		delete(w.pending, actor)
	}
	return errDown
}

// through makes a step of a question with an answer and an error.
func through[T any](ctx context.Context, w *world, what string, changes bool, do func() (T, error)) (answer T, err error) {
	var failed error
	if err := w.pass(ctx, what, changes, func() { answer, failed = do() }); err != nil {
		var none T
		return none, err
	}
	return answer, failed
}

type stepAddresses struct {
	fakeAddresses
	w *world
}

func (s stepAddresses) AssignIP(ctx context.Context, args calico.AssignIPArgs) error {
	_, err := through(ctx, s.w, "assign", true, func() (any, error) { return nil, s.fakeAddresses.AssignIP(ctx, args) })
	return err
}

func (s stepAddresses) AutoAssign(
	ctx context.Context, args calico.AutoAssignArgs,
) (v4, v6 *calico.IPAMAssignments, err error) {
	v4, err = through(ctx, s.w, "assign any", true, func() (*calico.IPAMAssignments, error) {
		v4, _, err := s.fakeAddresses.AutoAssign(ctx, args)
		return v4, err
	})
	return v4, nil, err
}

func (s stepAddresses) ReleaseIPs(
	ctx context.Context, ips ...calico.ReleaseOptions,
) ([]cnet.IP, []calico.ReleaseOptions, error) {
	_, err := through(ctx, s.w, "release", true, func() (any, error) {
		_, _, err := s.fakeAddresses.ReleaseIPs(ctx, ips...)
		return nil, err
	})
	return nil, nil, err
}

func (s stepAddresses) GetAssignmentAttributes(ctx context.Context, ip cnet.IP) (map[string]string, *string, error) {
	var handle *string
	attributes, err := through(ctx, s.w, "who has", false, func() (map[string]string, error) {
		attributes, held, err := s.fakeAddresses.GetAssignmentAttributes(ctx, ip)
		handle = held
		return attributes, err
	})
	return attributes, handle, err
}

type stepEndpoints struct {
	fakeEndpoints
	w *world
}

func (s stepEndpoints) Create(
	ctx context.Context, e *libapi.WorkloadEndpoint, o options.SetOptions,
) (*libapi.WorkloadEndpoint, error) {
	return through(ctx, s.w, "store endpoint", true, func() (*libapi.WorkloadEndpoint, error) {
		return s.fakeEndpoints.Create(ctx, e, o)
	})
}

func (s stepEndpoints) Delete(
	ctx context.Context, namespace, name string, o options.DeleteOptions,
) (*libapi.WorkloadEndpoint, error) {
	return through(ctx, s.w, "delete endpoint", true, func() (*libapi.WorkloadEndpoint, error) {
		return s.fakeEndpoints.Delete(ctx, namespace, name, o)
	})
}

func (s stepEndpoints) Get(
	ctx context.Context, namespace, name string, o options.GetOptions,
) (*libapi.WorkloadEndpoint, error) {
	return through(ctx, s.w, "get endpoint", false, func() (*libapi.WorkloadEndpoint, error) {
		return s.fakeEndpoints.Get(ctx, namespace, name, o)
	})
}

func (s stepEndpoints) List(ctx context.Context, o options.ListOptions) (*libapi.WorkloadEndpointList, error) {
	return through(ctx, s.w, "list endpoints", false, func() (*libapi.WorkloadEndpointList, error) {
		return s.fakeEndpoints.List(ctx, o)
	})
}

type stepProfiles struct {
	fakeProfiles
	w *world
}

func (s stepProfiles) Get(ctx context.Context, name string, o options.GetOptions) (*v3.Profile, error) {
	return through(ctx, s.w, "get profile", false, func() (*v3.Profile, error) { return s.fakeProfiles.Get(ctx, name, o) })
}

type stepAllocations struct{ w *world }

func (s stepAllocations) Allocations(
	ctx context.Context, node, prefix string,
) ([]datastore.Allocation, map[string]string, error) {
	all, err := through(ctx, s.w, "list allocations", false, func() ([]datastore.Allocation, error) {
		all, _, err := s.w.fake.Allocations(ctx, node, prefix)
		return all, err
	})
	return all, nil, err
}

func (s stepAllocations) RemoveHandle(context.Context, string, string) error { return nil }

type stepEngine struct{ w *world }

func (s stepEngine) Endpoints(ctx context.Context, name string) (map[string]engine.Endpoint, []string, error) {
	all, err := through(ctx, s.w, "ask Docker", false, func() (map[string]engine.Endpoint, error) {
		all, _, err := s.w.fake.Endpoints(ctx, name)
		return all, err
	})
	return all, []string{"n"}, err
}

// stepLinks are the host's, for a driver as long as it lives.
type stepLinks struct {
	fakeLinks
	w          *world
	generation int
}

func (s stepLinks) alive(do func() error) error {
	s.w.guard.Lock()
	if s.generation != s.w.generation {
		s.w.guard.Unlock()
		<-s.w.over
		return errDown
	}
	defer s.w.guard.Unlock()
	return do()
}

func (s stepLinks) Create(pair link.Pair) error {
	return s.alive(func() error { return s.fakeLinks.Create(pair) })
}

func (s stepLinks) Remove(name string) error {
	return s.alive(func() error { return s.fakeLinks.Remove(name) })
}

func (s stepLinks) Exists(name string) (exists bool) {
	_ = s.alive(func() error {
		exists = s.fakeLinks.Exists(name)
		return nil
	})
	return exists
}

func (s stepLinks) Owned() (owned map[string]string, err error) {
	err = s.alive(func() (err error) {
		owned, err = s.fakeLinks.Owned()
		return err
	})
	return owned, err
}

// startDriver starts a driver, which knows nothing of one before it.
func (w *world) startDriver() {
	w.generation++
	w.killed = make(chan struct{})
	links := stepLinks{fakeLinks{w.fake}, w, w.generation}
	ports := &publish.Ports{Store: w.records, Run: w.run, Attached: links.Exists, Hold: w.hold}
	w.whole = driver.New(
		driver.Settings{
			Node: w.node, Take: 75 * time.Second, Give: 5 * time.Second, Settle: 10 * time.Second, Every: time.Hour,
			DefaultMTU: func() int { return 1450 }, Relabel: func() {},
		},
		driver.Datastore{
			Pools: fakePools{w.fake}, Profiles: stepProfiles{fakeProfiles{w.fake}, w},
			Endpoints: stepEndpoints{fakeEndpoints{w.fake}, w}, Addresses: stepAddresses{fakeAddresses{w.fake}, w},
			Allocations: stepAllocations{w}, Patience: datastore.Patience{Where: "https://a0:2379"},
		},
		stepEngine{w}, links, w.records, ports, &observe.Record{}, slog.New(slog.DiscardHandler),
	)
	w.handlers = w.whole.Handlers(w.calls)
}

// kill ends the driver. What it was doing never goes on.
func (w *world) kill() {
	w.guard.Lock()
	defer w.guard.Unlock()
	for actor, s := range w.pending {
		if !strings.HasPrefix(s.what, "engine") {
			delete(w.pending, actor)
		}
	}
	close(w.killed)
	w.comparing = false
	w.restarts++
	w.startDriver()
}

var errGone = errors.New("the engine does not go on with this container")

// call is one of the engine's calls. The engine repeats it when the driver is killed meanwhile.
func (w *world) call(c *simulated, name string, request, response any) error {
	ctx := context.WithValue(context.Background(), actorKey{}, c.name)
	if err := w.pass(ctx, "engine calls "+name, false, func() {}); err != nil {
		return errGone
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	for {
		w.guard.Lock()
		handlers, killed := w.handlers, w.killed
		bound := context.WithValue(ctx, generationKey{}, w.generation)
		w.guard.Unlock()
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
		case <-c.gone:
			return errGone
		case <-w.over:
			return errGone
		}
		var answer struct{ Err string }
		if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil {
			return err
		}
		if answer.Err != "" {
			return errors.New(answer.Err)
		}
		return json.Unmarshal(recorder.Body.Bytes(), response)
	}
}

// live starts the container and removes it when it is told to, as engines do.
func (w *world) live(c *simulated) {
	defer func() {
		w.guard.Lock()
		defer w.guard.Unlock()
		c.ended = true
		c.running = netip.Addr{}
		delete(w.docker, c.id)
	}()
	var address plugin.RequestAddressResponse
	request := plugin.RequestAddressRequest{PoolID: "192.168.0.0/16", Address: c.wanted}
	if w.call(c, "IpamDriver.RequestAddress", request, &address) != nil {
		return
	}
	prefix := netip.MustParsePrefix(address.Address)
	release := func() {
		_ = w.call(c, "IpamDriver.ReleaseAddress",
			plugin.ReleaseAddressRequest{PoolID: "192.168.0.0/16", Address: prefix.Addr().String()}, &plugin.Empty{})
	}
	endpoint := plugin.EndpointRequest{NetworkID: "n", EndpointID: c.id}
	err := w.call(c, "NetworkDriver.CreateEndpoint", plugin.CreateEndpointRequest{
		NetworkID: "n", EndpointID: c.id, Interface: &plugin.Interface{Address: address.Address},
	}, &plugin.CreateEndpointResponse{})
	if errors.Is(err, errGone) {
		return
	}
	if err != nil {
		release()
		return
	}
	// The engine may be slow here as well.
	ctx := context.WithValue(context.Background(), actorKey{}, c.name)
	err = w.pass(ctx, "engine stores endpoint", false, func() {
		w.docker[c.id] = engine.Endpoint{ID: c.id, NetworkID: "n", IPv4Address: address.Address}
	})
	if err == nil {
		err = w.call(c, "NetworkDriver.Join", plugin.JoinRequest{NetworkID: "n", EndpointID: c.id}, &plugin.JoinResponse{})
	}
	if errors.Is(err, errGone) {
		return
	}
	if err == nil {
		w.guard.Lock()
		c.running = prefix.Addr()
		w.guard.Unlock()
		select {
		case <-c.remove:
		case <-w.over:
			return
		}
		w.guard.Lock()
		c.running = netip.Addr{}
		w.guard.Unlock()
		if errors.Is(w.call(c, "NetworkDriver.Leave", endpoint, &plugin.Empty{}), errGone) {
			return
		}
	}
	w.guard.Lock()
	delete(w.docker, c.id)
	w.guard.Unlock()
	if errors.Is(w.call(c, "NetworkDriver.DeleteEndpoint", endpoint, &plugin.Empty{}), errGone) {
		return
	}
	release()
}

// compare starts a reconciliation.
func (w *world) compare() {
	w.guard.Lock()
	w.comparing = true
	generation, whole := w.generation, w.whole
	w.guard.Unlock()
	ctx := context.WithValue(context.WithValue(context.Background(), actorKey{}, "reconcile"), generationKey{}, generation)
	go func() {
		_, _ = whole.Reconciler.Once(ctx)
		w.guard.Lock()
		defer w.guard.Unlock()
		if generation == w.generation {
			w.comparing = false
		}
	}()
}

type action struct {
	name string
	do   func()
}

// actions are what can happen now; the first is what goes on by itself.
func (w *world) actions() []action {
	w.guard.Lock()
	defer w.guard.Unlock()
	pass := func(d time.Duration) action {
		return action{fmt.Sprint("time ", d), func() { time.Sleep(d) }}
	}
	carryOut := func(actor string) []action {
		s := w.pending[actor]
		if s == nil || s.hung {
			return nil
		}
		name := actor + ": " + s.what
		all := []action{{name, func() {
			w.last = actor
			w.finish(actor, s)
		}}}
		if s.changes {
			seen := maps.Clone(w.allocations)
			all = append(all,
				action{name + ", the answer is lost", func() {
					s.hung = true
					s.do()
				}},
				action{name + ", late", func() {
					s.hung = true
					// Writes of IPAM's are conditional on the revision of the block.
					onBlock := !strings.Contains(s.what, "endpoint")
					w.late = append(w.late, &step{what: name, do: func() {
						if !onBlock || maps.Equal(seen, w.allocations) {
							s.do()
						}
					}})
				}})
		}
		return all
	}
	var all []action
	order := []string{"c1", "c2", "reconcile"}
	if i := slices.Index(order, w.last); i >= 0 {
		order = append([]string{w.last}, slices.Delete(order, i, i+1)...)
	}
	if w.last == "reconcile" && w.comparing && w.pending["reconcile"] == nil {
		all = append(all, pass(11*time.Second))
	}
	for _, actor := range order {
		all = append(all, carryOut(actor)...)
	}
	ended := true
	for _, c := range w.containers {
		ended = ended && (c.ended || c.running.IsValid())
	}
	if len(all) == 0 && (!ended || w.comparing) {
		all = append(all, pass(9*time.Second))
	}
	if len(all) == 0 && len(w.trace) > 0 {
		all = append(all, action{"end", nil})
	}
	for i, s := range w.late {
		all = append(all, action{"etcd carries out " + s.what, func() {
			w.late = slices.Delete(w.late, i, i+1)
			s.do()
		}})
	}
	if !w.comparing {
		all = append(all, action{"reconcile", func() {
			w.last = "reconcile"
			w.compare()
		}})
	}
	all = append(all, pass(20*time.Second), pass(2*time.Minute))
	for _, c := range w.containers {
		switch {
		case c.running.IsValid() && !c.removed:
			all = append(all, action{c.name + " is removed", func() {
				w.last, c.removed = c.name, true
				close(c.remove)
			}})
		case !c.ended && !c.removed:
			all = append(all, action{c.name + "'s engine is killed", func() {
				c.removed = true
				w.guard.Lock()
				defer w.guard.Unlock()
				close(c.gone)
				c.ended = true
				if s := w.pending[c.name]; s != nil && strings.HasPrefix(s.what, "engine") {
					// It never calls.
					delete(w.pending, c.name)
				}
				delete(w.docker, c.id)
			}})
		}
	}
	if w.restarts < 2 {
		all = append(all, action{"the driver is killed", w.kill})
	}
	if _, taken := w.allocations[netip.MustParseAddr(first)]; !taken && !w.elsewhere {
		all = append(all, action{"another host takes " + first, func() {
			w.elsewhere = true
			fakeAddresses{w.fake}.allocate(netip.MustParseAddr(first), "docker-elsewhere", "a1")
		}})
	}
	return all
}

// finish carries the step out.
func (w *world) finish(actor string, s *step) {
	w.guard.Lock()
	defer w.guard.Unlock()
	s.do()
	delete(w.pending, actor)
	close(s.answered)
}

// wrong tells what is not as it must be at any time.
func (w *world) wrong() error {
	w.guard.Lock()
	defer w.guard.Unlock()
	holders := map[netip.Addr]string{}
	for _, c := range w.containers {
		if !c.running.IsValid() {
			continue
		}
		if other := holders[c.running]; other != "" {
			return fmt.Errorf("%s and %s run with address %s", other, c.name, c.running)
		}
		holders[c.running] = c.name
		if held := w.allocations[c.running]; held.Node != w.node {
			return fmt.Errorf("%s runs with address %s, which IPAM has for %q", c.name, c.running, held.Node)
		}
	}
	attached := map[netip.Addr]string{}
	for _, endpoint := range w.endpoints {
		if _, there := w.links[endpoint.Spec.InterfaceName]; !there {
			continue
		}
		for _, address := range workload.Addresses(endpoint) {
			if other := attached[address]; other != "" {
				return fmt.Errorf("endpoints %s and %s have address %s", other, endpoint.Spec.Endpoint, address)
			}
			attached[address] = endpoint.Spec.Endpoint
		}
	}
	return nil
}

// settle ends all faults and containers, and tells what is left behind for good.
func (w *world) settle() error {
	w.guard.Lock()
	w.open = true
	for _, s := range w.late {
		s.do()
	}
	for _, s := range w.pending {
		if !s.hung {
			s.do()
			close(s.answered)
		}
	}
	clear(w.pending)
	w.guard.Unlock()
	for _, c := range w.containers {
		if !c.removed {
			close(c.remove)
		}
	}
	for range 3 {
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		if err := w.wrong(); err != nil {
			return err
		}
		w.compare()
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	maps.DeleteFunc(w.allocations, func(_ netip.Addr, held datastore.Allocation) bool { return held.Node != w.node })
	if len(w.allocations)+len(w.endpoints)+len(w.links) > 0 {
		return fmt.Errorf("left behind for good: %v %v %v", w.allocations, slices.Collect(maps.Keys(w.endpoints)), w.links)
	}
	return nil
}

// explore runs one order of events: choose returns which of several actions is next.
func explore(t *testing.T, records *store.Store, calls *plugin.Unanswered, wanted [2]string, choose func(int) int,
) (trace []string, err error) {
	t.Helper()
	// One record serves all orders.
	for _, address := range []netip.Addr{netip.MustParseAddr(first), netip.MustParseAddr(first).Next()} {
		if records.Owed(address) > 0 {
			if err := records.SetOwed(address, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	synctest.Test(t, func(t *testing.T) {
		w := &world{fake: newFake(), records: records, calls: calls, pending: map[string]*step{}, over: make(chan struct{})}
		w.networks = []string{"n"}
		pool := v3.IPPool{Spec: v3.IPPoolSpec{CIDR: "192.168.0.0/16"}}
		pool.Name = "netv"
		w.pools = []v3.IPPool{pool}
		w.profiles["netv"] = &v3.Profile{}
		w.startDriver()
		for i, address := range wanted {
			c := &simulated{
				name: fmt.Sprint("c", i+1), id: strings.Repeat(fmt.Sprint(i+1), 16), wanted: address,
				gone: make(chan struct{}), remove: make(chan struct{}),
			}
			w.containers = append(w.containers, c)
			go w.live(c)
		}
		for range 120 {
			synctest.Wait()
			if err = w.wrong(); err != nil {
				break
			}
			all := w.actions()
			next := all[choose(len(all))]
			w.trace = append(w.trace, next.name)
			if next.do == nil {
				break
			}
			next.do()
		}
		if err == nil {
			err = w.settle()
		}
		trace = w.trace
		close(w.over)
		time.Sleep(time.Hour)
		synctest.Wait()
	})
	return trace, err
}

func TestNoOrderOfEventsGivesOneAddressToTwoContainers(t *testing.T) {
	records, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pool := datastore.Pool{Name: "netv", CIDR: netip.MustParsePrefix("192.168.0.0/16")}
	if _, err := records.PutNetwork("n", store.Network{Pools: datastore.Pools{pool}}); err != nil {
		t.Fatal(err)
	}
	calls, err := plugin.OpenUnanswered(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const switches, random = 2, 1000
	for name, wanted := range map[string][2]string{
		"any address":       {"", ""},
		"any, then by --ip": {"", first},
		"both by --ip":      {first, first},
	} {
		t.Run(name, func(t *testing.T) {
			orders := 0
			try := func(choose func(int) int) {
				orders++
				if trace, err := explore(t, records, calls, wanted, choose); err != nil {
					t.Fatalf("%v, after\n  %s", err, strings.Join(trace, "\n  "))
				}
			}
			// All orders that leave what goes on by itself at most so many times: each is the points at which it does,
			// and what happens there.
			var extend func(prefix []int, left int)
			extend = func(prefix []int, left int) {
				var counts []int
				try(func(count int) int {
					counts = append(counts, count)
					if i := len(counts) - 1; i < len(prefix) {
						return prefix[i]
					}
					return 0
				})
				if left == 0 {
					return
				}
				for at := len(prefix); at < len(counts); at++ {
					for choice := 1; choice < counts[at]; choice++ {
						next := append(slices.Clone(prefix), make([]int, at-len(prefix))...)
						extend(append(next, choice), left-1)
					}
				}
			}
			extend(nil, switches)
			for seed := range uint64(random) {
				source := rand.New(rand.NewPCG(seed, 0))
				try(func(count int) int {
					if source.IntN(3) > 0 {
						return 0
					}
					return source.IntN(count)
				})
			}
			t.Logf("%d orders", orders)
		})
	}
}
