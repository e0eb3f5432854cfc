package driver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/projectcalico/calico/libcalico-go/lib/options"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/driver"
	"calico-lab/docker-driver/engine"
	"calico-lab/docker-driver/link"
	"calico-lab/docker-driver/plugin"
	"calico-lab/docker-driver/reconcile"
	"calico-lab/docker-driver/store"
	"calico-lab/docker-driver/workload"
)

const (
	running = "aaaaaaaaaaaabbbb"
	stale   = "ccccccccccccdddd"
)

var (
	runningAddress = netip.MustParseAddr("192.168.0.1")
	staleAddress   = netip.MustParseAddr("192.168.0.2")
)

// consistent returns a host with one running container and no differences.
func consistent(t *testing.T) (*fake, *driver.Driver, *store.Store) {
	t.Helper()
	f := newFake()
	d, records := assemble(t, f)
	f.networks = []string{"n"}
	f.docker[running] = engine.Endpoint{
		ID: running, NetworkID: "n", IPv4Address: "192.168.0.1/32", MacAddress: "02:42:c0:a8:00:01",
	}
	pool := datastore.Pool{Name: "netv", CIDR: netip.MustParsePrefix("192.168.0.0/16")}
	if _, err := records.PutNetwork("n", store.Network{Pools: datastore.Pools{pool}}); err != nil {
		t.Fatal(err)
	}
	f.add(t, running, runningAddress)
	return f, d, records
}

// add adds an endpoint of this node with its address and interface.
func (f *fake) add(t *testing.T, id string, address netip.Addr) {
	t.Helper()
	endpoint := workload.Endpoints{Node: f.node}.New(id, "02:42:00:00:00:01", []netip.Addr{address}, []string{"netv"})
	if _, err := (fakeEndpoints{f}).Create(t.Context(), endpoint, options.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	fakeAddresses{f}.allocate(address, "docker-"+id, f.node)
	f.links[workload.HostInterface(id)] = link.Pair{EndpointID: id, Host: workload.HostInterface(id)}
}

// duringRepair runs do after the comparisons of a reconciliation and before the release of leaked addresses: during the
// removal of a stale interface.
func (f *fake) duringRepair(do func()) {
	f.links["calieeeeeeeeeee"] = link.Pair{EndpointID: "eeeeeeeeeeeeffff"}
	f.onLinkRemove = func() {
		f.onLinkRemove = nil
		do()
	}
}

// has reports whether the endpoint is stored, its address allocated, and its interface present.
func (f *fake) has(id string, address netip.Addr) [3]bool {
	_, err := workload.Endpoints{Client: fakeEndpoints{f}, Node: f.node}.Get(context.Background(), id)
	_, allocated := f.allocations[address]
	_, attached := f.links[workload.HostInterface(id)]
	return [3]bool{err == nil, allocated, attached}
}

// complete is the result of has for an endpoint without differences.
var complete = [3]bool{true, true, true}

// claimingIPAM claims the stale endpoint's address.
type claimingIPAM struct{ reconcile.IPAM }

func (claimingIPAM) Claimed(allocation datastore.Allocation) bool {
	return allocation.Address == staleAddress
}

func TestReconcile(t *testing.T) {
	cases := map[string]struct {
		// given changes the consistent host.
		given func(t *testing.T, f *fake, d *driver.Driver, records *store.Store)
		// repaired are the expected repairs by kind, failure whether reconciliation must fail.
		repaired map[string]int
		failure  bool
		// want is the final state of the stale endpoint.
		want [3]bool
		// ports are the published ports.
		ports []string
	}{
		"no differences": {given: func(*testing.T, *fake, *driver.Driver, *store.Store) {}},
		"endpoint without a Docker endpoint": {
			given:    func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) { f.add(t, stale, staleAddress) },
			repaired: map[string]int{"removed endpoint": 1, "removed interface": 1, "released address": 1},
		},
		"address without an endpoint": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				fakeAddresses{f}.allocate(staleAddress, "docker-x", "a0")
			},
			repaired: map[string]int{"released address": 1},
		},
		"address of a starting container": {
			given: func(t *testing.T, _ *fake, d *driver.Driver, _ *store.Store) {
				post(t, d, "IpamDriver.RequestAddress",
					plugin.RequestAddressRequest{PoolID: "192.168.0.0/16", Address: staleAddress.String()})
			},
			want: [3]bool{false, true, false},
		},
		"leaked address assigned to a container after the comparisons": {
			given: func(t *testing.T, f *fake, d *driver.Driver, _ *store.Store) {
				fakeAddresses{f}.allocate(staleAddress, "docker-x", "a0")
				f.duringRepair(func() {
					post(t, d, "IpamDriver.RequestAddress",
						plugin.RequestAddressRequest{PoolID: "192.168.0.0/16", Address: staleAddress.String()})
				})
			},
			repaired: map[string]int{"removed interface": 1}, want: [3]bool{false, true, false},
		},
		"leaked address released and assigned after the comparisons": {
			given: func(t *testing.T, f *fake, d *driver.Driver, _ *store.Store) {
				fakeAddresses{f}.allocate(staleAddress, "docker-x", "a0")
				f.duringRepair(func() {
					fakeAddresses{f}.allocate(staleAddress, "docker-y", "a0")
					d.Reconciler.IPAM = claimingIPAM{d.Reconciler.IPAM}
				})
			},
			repaired: map[string]int{"removed interface": 1, "released address": 1}, want: [3]bool{false, true, false},
		},
		"address of another host": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				fakeAddresses{f}.allocate(staleAddress, "docker-x", "a1")
			},
			want: [3]bool{false, true, false},
		},
		"tunnel address of this host": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				fakeAddresses{f}.allocate(staleAddress, "vxlan-tunnel-addr-a0", "a0")
			},
			want: [3]bool{false, true, false},
		},
		"interface without an endpoint": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.links[workload.HostInterface(stale)] = link.Pair{EndpointID: stale}
			},
			repaired: map[string]int{"removed interface": 1},
		},
		"engine does not run": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.add(t, stale, staleAddress)
				f.docker = nil
			},
			failure: true, want: complete,
		},
		"engine stops between the comparisons": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.add(t, stale, staleAddress)
				f.onEngineList = func() { f.docker = nil }
			},
			failure: true, want: complete,
		},
		"datastore unavailable": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.add(t, stale, staleAddress)
				f.etcdDown = true
			},
			failure: true, want: complete,
		},
		"container starts between the comparisons": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.add(t, stale, staleAddress)
				f.onEngineList = func() {
					f.docker[stale] = engine.Endpoint{ID: stale, NetworkID: "n", IPv4Address: "192.168.0.2/32"}
				}
			},
			want: complete,
		},
		"container starts during the comparisons, with another difference": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.links["calieeeeeeeeeee"] = link.Pair{EndpointID: "eeeeeeeeeeeeffff"}
				comparisons := 0
				f.onEngineList = func() {
					if comparisons++; comparisons == 1 {
						f.add(t, stale, staleAddress)
					} else {
						f.docker[stale] = engine.Endpoint{ID: stale, NetworkID: "n", IPv4Address: "192.168.0.2/32"}
					}
				}
			},
			repaired: map[string]int{"removed interface": 1}, want: complete,
		},
		"endpoint missing in the datastore": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.docker[stale] = engine.Endpoint{
					ID: stale, NetworkID: "n", IPv4Address: "192.168.0.2/32", MacAddress: "02:42:c0:a8:00:02",
				}
				f.links[workload.HostInterface(stale)] = link.Pair{EndpointID: stale}
			},
			repaired: map[string]int{"recreated endpoint": 1, "reallocated address": 1}, want: complete,
		},
		"address allocated to another host too": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.add(t, stale, staleAddress)
				f.docker[stale] = engine.Endpoint{ID: stale, NetworkID: "n", IPv4Address: "192.168.0.2/32"}
				fakeAddresses{f}.allocate(staleAddress, "docker-x", "a1")
			},
			failure: true, want: complete,
		},
		"handle without an address": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.emptyHandles = map[string]string{"docker-x": "1"}
			},
			repaired: map[string]int{"removed handle": 1},
		},
		"handle that gets its address between the comparisons": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.emptyHandles = map[string]string{"docker-x": "1"}
				f.onEngineList = func() { f.emptyHandles = nil }
			},
		},
		"handle changed between the comparisons": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.emptyHandles = map[string]string{"docker-x": "1"}
				f.onEngineList = func() {
					f.emptyHandles = map[string]string{"docker-x": "2"}
					f.onEngineList = func() { f.emptyHandles = nil }
				}
			},
		},
		"published ports of an endpoint without a Docker endpoint": {
			given: func(t *testing.T, f *fake, d *driver.Driver, _ *store.Store) {
				f.add(t, stale, staleAddress)
				publishPort(t, d, stale, staleAddress)
				publishPort(t, d, running, runningAddress)
			},
			repaired: map[string]int{
				"removed endpoint": 1, "removed interface": 1, "released address": 1, "unpublished ports": 1,
			},
			ports: []string{"tcp:0.0.0.0:8001"},
		},
		"published ports without an endpoint": {
			given: func(t *testing.T, f *fake, d *driver.Driver, _ *store.Store) {
				publishPort(t, d, stale, staleAddress)
			},
			repaired: map[string]int{"unpublished ports": 1},
		},
		"published ports with flushed rules": {
			given: func(t *testing.T, f *fake, d *driver.Driver, _ *store.Store) {
				publishPort(t, d, running, runningAddress)
				clear(f.rules)
			},
			ports: []string{"tcp:0.0.0.0:8001"},
		},
		"stored network without a Docker network": {
			given: func(t *testing.T, _ *fake, _ *driver.Driver, records *store.Store) {
				if _, err := records.PutNetwork("removed", store.Network{}); err != nil {
					t.Fatal(err)
				}
			},
			repaired: map[string]int{"removed network record": 1},
		},
		"created pool without a network": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.pools = append(f.pools, createdPool("10.70.0.0/24", "a0"))
			},
			repaired: map[string]int{"unregistered pool": 1},
		},
		"created pool with a network": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, records *store.Store) {
				f.pools = append(f.pools, createdPool("10.70.0.0/24", "a0"))
				pool := datastore.Pool{Name: "created", CIDR: netip.MustParsePrefix("10.70.0.0/24")}
				if _, err := records.PutNetwork("n", store.Network{Pools: datastore.Pools{pool}}); err != nil {
					t.Fatal(err)
				}
			},
		},
		"created pool of another host": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.pools = append(f.pools, createdPool("10.70.0.0/24", "a1"))
			},
		},
		"created pool and a network without a record": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, records *store.Store) {
				f.pools = append(f.pools, createdPool("10.70.0.0/24", "a0"))
				f.networks = append(f.networks, "lost")
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f, d, records := consistent(t)
			c.given(t, f, d, records)
			repaired, err := d.Reconciler.Once(t.Context())
			if (err != nil) != c.failure {
				t.Errorf("error %v", err)
			}
			if len(repaired)+len(c.repaired) > 0 {
				equal(t, "repaired", repaired, c.repaired)
			}
			f.etcdDown = false
			equal(t, "running", f.has(running, runningAddress), complete)
			equal(t, "stale", f.has(stale, staleAddress), c.want)
			equal(t, "ports in use", append([]string(nil), f.portsInUse...), c.ports)
			if count := strings.Count(f.rules["iptables"], "DNAT"); count != len(c.ports) {
				t.Errorf("%d rules", count)
			}
			if known := records.Networks(); len(known) != 1 {
				t.Errorf("stored networks: %v", known)
			}
			if f.docker == nil || c.failure {
				return
			}
			f.onEngineList = nil
			again, err := d.Reconciler.Once(t.Context())
			if err != nil || len(again) > 0 {
				t.Errorf("a second reconciliation repaired %v, %v", again, err)
			}
		})
	}
}

// publishPort publishes port 8000 plus the last byte of the address.
func publishPort(t *testing.T, d *driver.Driver, id string, address netip.Addr) {
	t.Helper()
	number := 8000 + uint16(address.As4()[3])
	err := d.Ports.Publish(id, []netip.Addr{address}, []plugin.PortBinding{{Proto: 6, Port: 80, HostPort: number}})
	if err != nil {
		t.Fatal(err)
	}
}

func post(t *testing.T, d *driver.Driver, call string, request any) {
	t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	recorder := httptest.NewRecorder()
	posted := httptest.NewRequest("POST", "/"+call, bytes.NewReader(body))
	handlersOf(t, d, nil)[driver.NetworkName].ServeHTTP(recorder, posted)
	var answer plugin.ErrorResponse
	if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil || answer.Err != "" {
		t.Fatalf("%s: %v %s", call, err, answer.Err)
	}
}

func TestRunRequestsLabelsOfRecreatedEndpoints(t *testing.T) {
	f, d, _ := consistent(t)
	delete(f.endpoints, slices.Collect(maps.Keys(f.endpoints))[0])
	ctx, cancel := context.WithCancel(t.Context())
	done := d.Reconciler.Done
	d.Reconciler.Done = func(repaired map[string]int, err error) {
		done(repaired, err)
		cancel()
	}
	d.Reconciler.Requested.Request()
	d.Reconciler.Run(ctx)
	equal(t, "running", f.has(running, runningAddress), complete)
	if len(f.relabel) != 1 {
		t.Error("labels not requested")
	}
}

// A difference that only the second comparison finds must not wait for the interval, which is an hour here.
func TestRunRechecksDifferenceOfSecondComparisonOnly(t *testing.T) {
	f, d, _ := consistent(t)
	f.links["califirst"] = link.Pair{EndpointID: "first", Host: "califirst"}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	comparisons := 0
	f.onEngineList = func() {
		comparisons++
		if comparisons == 1 {
			fakeAddresses{f}.allocate(staleAddress, "docker-"+stale, f.node)
		}
	}
	d.Reconciler.Done = func(map[string]int, error) {
		if _, found := f.allocations[staleAddress]; !found {
			cancel()
		}
	}
	d.Reconciler.Requested.Request()
	d.Reconciler.Run(ctx)
	if _, found := f.allocations[staleAddress]; found {
		t.Errorf("the address is allocated after %d comparisons", comparisons)
	}
}

// Calico's library returns no error when it releases an address and does not delete the handle.
func TestReleaseAddressRequestsReconcileForRemainingHandle(t *testing.T) {
	f, d, _ := consistent(t)
	handle := "docker-" + stale
	fakeAddresses{f}.allocate(staleAddress, handle, f.node)
	f.emptyHandles = map[string]string{handle: "1"}
	body := []byte(`{"PoolID": "192.168.0.0/16", "Address": "` + staleAddress.String() + `"}`)
	request := httptest.NewRequest("POST", "/IpamDriver.ReleaseAddress", bytes.NewReader(body))
	handlersOf(t, d, nil)[driver.IPAMName].ServeHTTP(httptest.NewRecorder(), request)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	d.Reconciler.Done = func(map[string]int, error) { cancel() }
	d.Reconciler.Run(ctx)
	if len(f.emptyHandles) > 0 {
		t.Errorf("remaining handles: %v", f.emptyHandles)
	}
}

// After a comparison with starting containers the next one follows soon, and may be the first one to fail.
func TestRunWarnsOnceOfFailure(t *testing.T) {
	f, d, _ := consistent(t)
	post(t, d, "IpamDriver.RequestAddress", plugin.RequestAddressRequest{PoolID: "192.168.0.0/16"})
	var log bytes.Buffer
	d.Reconciler.Log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	runs := 0
	d.Reconciler.Done = func(_ map[string]int, err error) {
		f.docker = nil
		if runs++; runs == 4 {
			cancel()
		}
	}
	d.Reconciler.Requested.Request()
	d.Reconciler.Run(ctx)
	if warned := strings.Count(log.String(), "the engine does not run"); warned != 1 {
		t.Errorf("warned %d times in %d runs:\n%s", warned, runs, &log)
	}
}
