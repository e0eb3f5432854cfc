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
	"calico-lab/docker-driver/store"
	"calico-lab/docker-driver/workload"
)

const (
	running = "aaaaaaaaaaaabbbb"
	left    = "ccccccccccccdddd"
)

var (
	runningAddress = netip.MustParseAddr("192.168.0.1")
	leftAddress    = netip.MustParseAddr("192.168.0.2")
)

// consistent makes a host on which one container runs and everything agrees.
func consistent(t *testing.T) (*fake, *driver.Driver, *store.Store) {
	t.Helper()
	f := newFake()
	whole, records := assemble(t, f)
	f.networks = []string{"n"}
	f.docker[running] = engine.Endpoint{
		ID: running, NetworkID: "n", IPv4Address: "192.168.0.1/32", MacAddress: "02:42:c0:a8:00:01",
	}
	pool := datastore.Pool{Name: "netv", CIDR: netip.MustParsePrefix("192.168.0.0/16")}
	if _, err := records.PutNetwork("n", store.Network{Pools: datastore.Pools{pool}}); err != nil {
		t.Fatal(err)
	}
	f.add(t, running, runningAddress)
	return f, whole, records
}

// add makes an endpoint of this node with its address and interface.
func (f *fake) add(t *testing.T, id string, address netip.Addr) {
	t.Helper()
	endpoint := workload.Endpoints{Node: f.node}.New(id, "02:42:00:00:00:01", []netip.Addr{address}, []string{"netv"})
	if _, err := (fakeEndpoints{f}).Create(t.Context(), endpoint, options.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	fakeAddresses{f}.allocate(address, "docker-"+id, f.node)
	f.links[workload.HostInterface(id)] = link.Pair{EndpointID: id, Host: workload.HostInterface(id)}
}

// whileMending does something between the looks of a reconciliation and the addresses that they found left behind. It is
// the removal of an interface that leads to it.
func (f *fake) whileMending(do func()) {
	f.links["calieeeeeeeeeee"] = link.Pair{EndpointID: "eeeeeeeeeeeeffff"}
	f.removing = func() {
		f.removing = nil
		do()
	}
}

func (f *fake) has(id string, address netip.Addr) [3]bool {
	_, err := workload.Endpoints{Client: fakeEndpoints{f}, Node: f.node}.Get(context.Background(), id)
	_, allocated := f.allocations[address]
	_, attached := f.links[workload.HostInterface(id)]
	return [3]bool{err == nil, allocated, attached}
}

// everything is an endpoint that is stored, has its address, and an interface.
var everything = [3]bool{true, true, true}

func TestReconcile(t *testing.T) {
	cases := map[string]struct {
		// given changes the consistent host.
		given func(t *testing.T, f *fake, whole *driver.Driver, records *store.Store)
		// mended is what reconciliation says, failure whether it must fail.
		mended  map[string]int
		failure bool
		// left is what there is of the second endpoint.
		left [3]bool
		// ports are those that are published.
		ports []string
	}{
		"everything agrees": {given: func(*testing.T, *fake, *driver.Driver, *store.Store) {}},
		"an endpoint that Docker does not have": {
			given:  func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) { f.add(t, left, leftAddress) },
			mended: map[string]int{"removed endpoint": 1, "removed interface": 1, "released address": 1},
		},
		"an address without an endpoint": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				fakeAddresses{f}.allocate(leftAddress, "docker-x", "a0")
			},
			mended: map[string]int{"released address": 1},
		},
		"an address on its way to a container": {
			given: func(t *testing.T, _ *fake, whole *driver.Driver, _ *store.Store) {
				post(t, whole, "IpamDriver.RequestAddress",
					plugin.RequestAddressRequest{PoolID: "192.168.0.0/16", Address: leftAddress.String()})
			},
			left: [3]bool{false, true, false},
		},
		"an address that a container takes over after the looks": {
			given: func(t *testing.T, f *fake, whole *driver.Driver, _ *store.Store) {
				fakeAddresses{f}.allocate(leftAddress, "docker-x", "a0")
				f.whileMending(func() {
					post(t, whole, "IpamDriver.RequestAddress",
						plugin.RequestAddressRequest{PoolID: "192.168.0.0/16", Address: leftAddress.String()})
				})
			},
			mended: map[string]int{"removed interface": 1}, left: [3]bool{false, true, false},
		},
		"an address that is released and assigned anew after the looks": {
			given: func(t *testing.T, f *fake, whole *driver.Driver, _ *store.Store) {
				fakeAddresses{f}.allocate(leftAddress, "docker-x", "a0")
				f.whileMending(func() {
					fakeAddresses{f}.allocate(leftAddress, "docker-y", "a0")
					whole.Reconciler.Claimed = func(a datastore.Allocation) bool { return a.Address == leftAddress }
				})
			},
			mended: map[string]int{"removed interface": 1, "released address": 1}, left: [3]bool{false, true, false},
		},
		"an address of another host": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				fakeAddresses{f}.allocate(leftAddress, "docker-x", "a1")
			},
			left: [3]bool{false, true, false},
		},
		"an address of this host that is not a container's": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				fakeAddresses{f}.allocate(leftAddress, "vxlan-tunnel-addr-a0", "a0")
			},
			left: [3]bool{false, true, false},
		},
		"an interface without an endpoint": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.links[workload.HostInterface(left)] = link.Pair{EndpointID: left}
			},
			mended: map[string]int{"removed interface": 1},
		},
		"the engine cannot be asked": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.add(t, left, leftAddress)
				f.docker = nil
			},
			failure: true, left: everything,
		},
		"the engine goes away between the looks": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.add(t, left, leftAddress)
				f.asked = func() { f.docker = nil }
			},
			failure: true, left: everything,
		},
		"the datastore cannot be asked": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.add(t, left, leftAddress)
				f.down = true
			},
			failure: true, left: everything,
		},
		"a container that starts between the looks": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.add(t, left, leftAddress)
				f.asked = func() {
					f.docker[left] = engine.Endpoint{ID: left, NetworkID: "n", IPv4Address: "192.168.0.2/32"}
				}
			},
			left: everything,
		},
		"a container that starts while something else is mended": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.links["calieeeeeeeeeee"] = link.Pair{EndpointID: "eeeeeeeeeeeeffff"}
				looks := 0
				f.asked = func() {
					if looks++; looks == 1 {
						f.add(t, left, leftAddress)
					} else {
						f.docker[left] = engine.Endpoint{ID: left, NetworkID: "n", IPv4Address: "192.168.0.2/32"}
					}
				}
			},
			mended: map[string]int{"removed interface": 1}, left: everything,
		},
		"the datastore lost an endpoint": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.docker[left] = engine.Endpoint{
					ID: left, NetworkID: "n", IPv4Address: "192.168.0.2/32", MacAddress: "02:42:c0:a8:00:02",
				}
				f.links[workload.HostInterface(left)] = link.Pair{EndpointID: left}
			},
			mended: map[string]int{"stored endpoint again": 1, "allocated address again": 1}, left: everything,
		},
		"an address that another host has as well": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.add(t, left, leftAddress)
				f.docker[left] = engine.Endpoint{ID: left, NetworkID: "n", IPv4Address: "192.168.0.2/32"}
				fakeAddresses{f}.allocate(leftAddress, "docker-x", "a1")
			},
			failure: true, left: everything,
		},
		"a handle without an address": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.emptyHandles = map[string]string{"docker-x": "1"}
			},
			mended: map[string]int{"removed handle": 1},
		},
		"a handle that is getting its address": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.emptyHandles = map[string]string{"docker-x": "1"}
				f.asked = func() { f.emptyHandles = nil }
			},
		},
		"a handle that is used between the looks": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.emptyHandles = map[string]string{"docker-x": "1"}
				f.asked = func() {
					f.emptyHandles = map[string]string{"docker-x": "2"}
					f.asked = func() { f.emptyHandles = nil }
				}
			},
		},
		"published ports of an endpoint that Docker does not have": {
			given: func(t *testing.T, f *fake, whole *driver.Driver, _ *store.Store) {
				f.add(t, left, leftAddress)
				publishPort(t, whole, left, leftAddress)
				publishPort(t, whole, running, runningAddress)
			},
			mended: map[string]int{
				"removed endpoint": 1, "removed interface": 1, "released address": 1, "withdrew ports": 1,
			},
			ports: []string{"tcp:0.0.0.0:8001"},
		},
		"published ports of an endpoint of which nothing else is left": {
			given: func(t *testing.T, f *fake, whole *driver.Driver, _ *store.Store) {
				publishPort(t, whole, left, leftAddress)
			},
			mended: map[string]int{"withdrew ports": 1},
		},
		"published ports whose rules were flushed": {
			given: func(t *testing.T, f *fake, whole *driver.Driver, _ *store.Store) {
				publishPort(t, whole, running, runningAddress)
				clear(f.rules)
			},
			ports: []string{"tcp:0.0.0.0:8001"},
		},
		"a network that Docker does not have": {
			given: func(t *testing.T, _ *fake, _ *driver.Driver, records *store.Store) {
				if _, err := records.PutNetwork("gone", store.Network{}); err != nil {
					t.Fatal(err)
				}
			},
			mended: map[string]int{"forgot network": 1},
		},
		"a pool that was made for a network that was not": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.pools = append(f.pools, madePool("10.70.0.0/24", "a0"))
			},
			mended: map[string]int{"gave up pool": 1},
		},
		"a pool that was made and that a network is on": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, records *store.Store) {
				f.pools = append(f.pools, madePool("10.70.0.0/24", "a0"))
				pool := datastore.Pool{Name: "made", CIDR: netip.MustParsePrefix("10.70.0.0/24")}
				if _, err := records.PutNetwork("n", store.Network{Pools: datastore.Pools{pool}}); err != nil {
					t.Fatal(err)
				}
			},
		},
		"a pool that was made for another host's network": {
			given: func(_ *testing.T, f *fake, _ *driver.Driver, _ *store.Store) {
				f.pools = append(f.pools, madePool("10.70.0.0/24", "a1"))
			},
		},
		"a pool that was made for a network whose record is lost": {
			given: func(t *testing.T, f *fake, _ *driver.Driver, records *store.Store) {
				f.pools = append(f.pools, madePool("10.70.0.0/24", "a0"))
				f.networks = append(f.networks, "lost")
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f, whole, records := consistent(t)
			c.given(t, f, whole, records)
			mended, err := whole.Reconciler.Once(t.Context())
			if (err != nil) != c.failure {
				t.Errorf("error %v", err)
			}
			if len(mended)+len(c.mended) > 0 {
				equal(t, "mended", mended, c.mended)
			}
			f.down = false
			equal(t, "running", f.has(running, runningAddress), everything)
			equal(t, "left", f.has(left, leftAddress), c.left)
			equal(t, "ports held", append([]string(nil), f.taken...), c.ports)
			if count := strings.Count(f.rules["iptables"], "DNAT"); count != len(c.ports) {
				t.Errorf("%d rules", count)
			}
			if known := records.Networks(); len(known) != 1 {
				t.Errorf("networks on record: %v", known)
			}
			if f.docker == nil || c.failure {
				return
			}
			f.asked = nil
			again, err := whole.Reconciler.Once(t.Context())
			if err != nil || len(again) > 0 {
				t.Errorf("a second reconciliation mended %v, %v", again, err)
			}
		})
	}
}

// publishPort publishes a port whose number ends as the address does.
func publishPort(t *testing.T, whole *driver.Driver, id string, address netip.Addr) {
	t.Helper()
	number := 8000 + uint16(address.As4()[3])
	err := whole.Ports.Publish(id, []netip.Addr{address}, []plugin.PortBinding{{Proto: 6, Port: 80, HostPort: number}})
	if err != nil {
		t.Fatal(err)
	}
}

func post(t *testing.T, whole *driver.Driver, call string, request any) {
	t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	recorder := httptest.NewRecorder()
	posted := httptest.NewRequest("POST", "/"+call, bytes.NewReader(body))
	handlersOf(t, whole, nil)[driver.NetworkName].ServeHTTP(recorder, posted)
	var answer plugin.ErrorResponse
	if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil || answer.Err != "" {
		t.Fatalf("%s: %v %s", call, err, answer.Err)
	}
}

func TestRunAsksForLabelsOfEndpointsThatItStored(t *testing.T) {
	f, whole, _ := consistent(t)
	delete(f.endpoints, slices.Collect(maps.Keys(f.endpoints))[0])
	ctx, cancel := context.WithCancel(t.Context())
	f.relabel = cancel
	whole.Reconciler.Ask()
	whole.Reconciler.Run(ctx)
	equal(t, "running", f.has(running, runningAddress), everything)
}

// What appears between the two looks, as an address does that was on its way until then, must not wait for the next
// regular reconciliation, which is an hour away here.
func TestRunLooksAgainForWhatOnlyTheSecondLookFound(t *testing.T) {
	f, whole, _ := consistent(t)
	f.links["califirst"] = link.Pair{EndpointID: "first", Host: "califirst"}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	looks := 0
	f.asked = func() {
		looks++
		if looks == 1 {
			fakeAddresses{f}.allocate(leftAddress, "docker-"+left, f.node)
		}
	}
	whole.Reconciler.Done = func(map[string]int, error) {
		if _, there := f.allocations[leftAddress]; !there {
			cancel()
		}
	}
	whole.Reconciler.Ask()
	whole.Reconciler.Run(ctx)
	if _, there := f.allocations[leftAddress]; there {
		t.Errorf("the address is still allocated after %d looks", looks)
	}
}

// Calico's library says nothing when a handle did not go with its address.
func TestAReleaseThatLeavesItsHandleWantsAReconciliation(t *testing.T) {
	f, whole, _ := consistent(t)
	handle := "docker-" + left
	fakeAddresses{f}.allocate(leftAddress, handle, f.node)
	f.emptyHandles = map[string]string{handle: "1"}
	body := []byte(`{"PoolID": "192.168.0.0/16", "Address": "` + leftAddress.String() + `"}`)
	request := httptest.NewRequest("POST", "/IpamDriver.ReleaseAddress", bytes.NewReader(body))
	handlersOf(t, whole, nil)[driver.IPAMName].ServeHTTP(httptest.NewRecorder(), request)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	whole.Reconciler.Done = func(map[string]int, error) { cancel() }
	whole.Reconciler.Run(ctx)
	if len(f.emptyHandles) > 0 {
		t.Errorf("handles left: %v", f.emptyHandles)
	}
}

// Soon after a look that saw addresses on their way comes another, which may be the first one to fail.
func TestRunWarnsOfAFailureThatFollowsAnUnsettledLook(t *testing.T) {
	f, whole, _ := consistent(t)
	post(t, whole, "IpamDriver.RequestAddress", plugin.RequestAddressRequest{PoolID: "192.168.0.0/16"})
	var log bytes.Buffer
	whole.Reconciler.Log = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	runs := 0
	whole.Reconciler.Done = func(_ map[string]int, err error) {
		f.docker = nil
		if runs++; runs == 4 {
			cancel()
		}
	}
	whole.Reconciler.Ask()
	whole.Reconciler.Run(ctx)
	if warned := strings.Count(log.String(), "the engine cannot be asked"); warned != 1 {
		t.Errorf("warned %d times in %d runs:\n%s", warned, runs, &log)
	}
}
