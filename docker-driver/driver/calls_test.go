package driver_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"

	"github.com/projectcalico/calico/libcalico-go/lib/options"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/driver"
	"calico-lab/docker-driver/link"
	"calico-lab/docker-driver/observe"
	"calico-lab/docker-driver/plugin"
	"calico-lab/docker-driver/publish"
	"calico-lab/docker-driver/store"
	"calico-lab/docker-driver/workload"
)

// A testCase is a file in testdata/calls: the initial state, the calls with their responses, and the final state.
type testCase struct {
	Given struct {
		// Allocations are handles and nodes by address.
		Allocations map[string]struct{ Handle, Node string }
		// Endpoints are WorkloadEndpoints by ID. Attached ones have an interface on this host.
		Endpoints map[string]struct {
			Node, Address, Container string
			Attached                 bool
		}
		// PortsInUse are ports of the host that another program uses, as protocol:address:port.
		PortsInUse []string
		LinkError  string
		RuleError  string
		EtcdDown   bool
		// Profiles are existing profiles that this driver did not create.
		Profiles []string
		// CreatedPools are the registered hosts of pools that this driver created, by CIDR.
		CreatedPools map[string]string
		// Journal are the requests that the previous driver process left, by call.
		Journal map[string][]json.RawMessage
		// Conflicts is the number of pool updates that fail because of an update by another host.
		Conflicts int
	}
	Calls []struct {
		// Socket is the network driver's by default.
		Socket  string
		Call    string
		Request json.RawMessage
		// Answer is compared as JSON. Err is the prefix of the error.
		Answer json.RawMessage
		Err    string
		Status int
		// EtcdDown and EtcdUp make the datastore unavailable or available from this call on.
		EtcdDown, EtcdUp bool
	}
	// Then is the final state. Fields that are not specified are not compared.
	Then struct {
		Allocations []string
		Endpoints   map[string]endpointState
		Interfaces  map[string]interfaceState
		Profiles    []string
		// Pools are name, CIDR, block size and registered hosts of pools that this driver created.
		Pools []string
		Rules map[string][]string
		// PortsInUse are the ports of the host that are in use.
		PortsInUse []string
	}
}

type endpointState struct {
	Networks  []string
	MAC       string
	Interface string
	Profiles  []string
}

type interfaceState struct {
	Peer, MAC   string
	MTU         int
	Addresses   []string
	NextHopIPv6 string
}

func TestCalls(t *testing.T) {
	files, err := filepath.Glob("testdata/calls/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var c testCase
			decoder := json.NewDecoder(bytes.NewReader(content))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&c); err != nil {
				t.Fatal(err)
			}
			c.run(t)
		})
	}
}

func (c testCase) run(t *testing.T) {
	f := newFake()
	f.etcdDown = c.Given.EtcdDown
	f.portsInUse = c.Given.PortsInUse
	for address, allocation := range c.Given.Allocations {
		fakeAddresses{f}.allocate(netip.MustParseAddr(address), allocation.Handle, allocation.Node)
	}
	for id, given := range c.Given.Endpoints {
		addresses := []netip.Addr{netip.MustParseAddr(given.Address)}
		endpoint := workload.Endpoints{Node: given.Node}.New(id, "02:42:00:00:00:01", addresses, []string{"netv"})
		endpoint.Annotations = map[string]string{workload.ContainerName: given.Container}
		if _, err := (fakeEndpoints{f}).Create(t.Context(), endpoint, options.SetOptions{}); err != nil {
			t.Fatal(err)
		}
		if given.Attached {
			f.links[workload.HostInterface(id)] = link.Pair{EndpointID: id}
		}
	}
	for _, name := range c.Given.Profiles {
		profile := v3.NewProfile()
		profile.Name = name
		f.profiles[name] = profile
	}
	if c.Given.LinkError != "" {
		f.linkError = errors.New(c.Given.LinkError)
	}
	if c.Given.RuleError != "" {
		f.ruleError = errors.New(c.Given.RuleError)
	}
	f.conflicts = c.Given.Conflicts
	for cidr, hosts := range c.Given.CreatedPools {
		f.pools = append(f.pools, createdPool(cidr, hosts))
	}
	d, _ := assemble(t, f)
	handlers := handlersOf(t, d, c.Given.Journal)
	for i, call := range c.Calls {
		f.etcdDown = (f.etcdDown || call.EtcdDown) && !call.EtcdUp
		socket := cmp.Or(call.Socket, driver.NetworkName)
		request := httptest.NewRequest(http.MethodPost, "/"+call.Call, bytes.NewReader(call.Request))
		recorder := httptest.NewRecorder()
		handlers[socket].ServeHTTP(recorder, request)
		if want := cmp.Or(call.Status, http.StatusOK); recorder.Code != want {
			t.Errorf("call %d %s: status %d, not %d", i, call.Call, recorder.Code, want)
		}
		var answer struct{ Err, Error string }
		if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil {
			t.Fatalf("call %d %s: %v in %s", i, call.Call, err, recorder.Body)
		}
		if answer.Err != answer.Error {
			t.Errorf("call %d %s: Err and Error differ: %s", i, call.Call, recorder.Body)
		}
		switch {
		case call.Err == "" && answer.Err != "":
			t.Errorf("call %d %s: error %s", i, call.Call, answer.Err)
		case !strings.HasPrefix(answer.Err, call.Err):
			t.Errorf("call %d %s:\n got error %q\nnot      %q", i, call.Call, answer.Err, call.Err)
		case call.Answer != nil && !sameJSON(t, call.Answer, recorder.Body.Bytes()):
			t.Errorf("call %d %s:\n got %s\nnot %s", i, call.Call, recorder.Body, call.Answer)
		}
	}
	c.compare(t, f)
}

func (c testCase) compare(t *testing.T, f *fake) {
	if c.Then.Allocations != nil {
		got := []string{}
		for address, allocation := range f.allocations {
			got = append(got, address.String()+" "+allocation.Node)
		}
		slices.Sort(got)
		equal(t, "allocations", got, c.Then.Allocations)
	}
	if c.Then.Endpoints != nil {
		got := map[string]endpointState{}
		for _, e := range f.endpoints {
			got[e.Spec.Endpoint] = endpointState{e.Spec.IPNetworks, e.Spec.MAC, e.Spec.InterfaceName, e.Spec.Profiles}
		}
		equal(t, "endpoints", got, c.Then.Endpoints)
	}
	if c.Then.Interfaces != nil {
		got := map[string]interfaceState{}
		for name, pair := range f.links {
			state := interfaceState{Peer: pair.Peer, MAC: pair.MAC.String(), MTU: pair.MTU}
			for _, address := range pair.Addresses {
				state.Addresses = append(state.Addresses, address.String())
			}
			if pair.NextHopIPv6.IsValid() {
				state.NextHopIPv6 = pair.NextHopIPv6.String()
			}
			got[name] = state
		}
		equal(t, "interfaces", got, c.Then.Interfaces)
	}
	if c.Then.Profiles != nil {
		equal(t, "profiles", slices.AppendSeq([]string{}, sortedKeys(f.profiles)), c.Then.Profiles)
	}
	if c.Then.Pools != nil {
		got := []string{}
		for _, pool := range f.pools {
			if hosts, ours := pool.Annotations["org.projectcalico.docker/hosts"]; ours {
				got = append(got, fmt.Sprintf("%s %s /%d %s", pool.Name, pool.Spec.CIDR, pool.Spec.BlockSize, hosts))
			}
		}
		equal(t, "pools", got, c.Then.Pools)
	}
	if c.Then.PortsInUse != nil {
		equal(t, "ports in use", append([]string{}, f.portsInUse...), c.Then.PortsInUse)
	}
	if c.Then.Rules != nil {
		got := map[string][]string{}
		for program, document := range f.rules {
			for _, line := range strings.Split(document, "\n") {
				if strings.HasPrefix(line, "-A ") {
					got[program] = append(got[program], line)
				}
			}
		}
		equal(t, "rules", got, c.Then.Rules)
	}
}

// createdPool is a pool that this driver created, with its registered hosts.
func createdPool(cidr, hosts string) v3.IPPool {
	pool := v3.IPPool{Spec: v3.IPPoolSpec{CIDR: cidr, BlockSize: 28}}
	pool.Name, pool.Annotations = "created", map[string]string{"org.projectcalico.docker/hosts": hosts}
	return pool
}

func sortedKeys[V any](all map[string]V) func(func(string) bool) {
	return slices.Values(slices.Sorted(maps.Keys(all)))
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nnot %+v", what, got, want)
	}
}

func sameJSON(t *testing.T, want, got []byte) bool {
	t.Helper()
	var a, b any
	if err := errors.Join(json.Unmarshal(want, &a), json.Unmarshal(got, &b)); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(a, b)
}

// assemble assembles a driver on the fake, with the pools of all cases.
func assemble(t *testing.T, f *fake) (*driver.Driver, *store.Store) {
	t.Helper()
	for name, cidr := range map[string]string{"netv": "192.168.0.0/16", "small": "10.50.0.0/30", "netv6": "fd00:50::/64"} {
		pool := v3.IPPool{Spec: v3.IPPoolSpec{CIDR: cidr}}
		pool.Name = name
		f.pools = append(f.pools, pool)
	}
	off := v3.IPPool{Spec: v3.IPPoolSpec{CIDR: "10.60.0.0/16", Disabled: true}}
	off.Name = "off"
	f.pools = append(f.pools, off)
	slices.SortFunc(f.pools, func(a, b v3.IPPool) int { return strings.Compare(a.Name, b.Name) })
	records, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	links := fakeLinks{f}
	ports := &publish.Ports{Store: records, Run: f.run, HasInterface: links.Exists, Reserve: f.reserve}
	short := 300 * time.Millisecond
	d := driver.New(
		driver.Settings{
			Node: f.node, StartTimeout: short, CleanupTimeout: short, RecheckDelay: time.Millisecond, Interval: time.Hour,
			DefaultMTU: func() int { return 1450 }, Relabel: f.relabel,
		},
		driver.Datastore{
			Pools: fakePools{f}, Profiles: fakeProfiles{f}, Endpoints: fakeEndpoints{f}, Addresses: fakeAddresses{f},
			Allocations: f, Retry: datastore.Retry{Endpoints: "https://a0:2379"},
		},
		f, links, records, ports, &observe.Status{}, slog.New(slog.DiscardHandler),
	)
	return d, records
}

// handlersOf returns the driver's handlers. journal are the requests that the previous driver process left, by call.
func handlersOf(
	t *testing.T, d *driver.Driver, journal map[string][]json.RawMessage,
) map[string]http.Handler {
	t.Helper()
	folder := t.TempDir()
	before, err := plugin.OpenJournal(folder)
	if err != nil {
		t.Fatal(err)
	}
	for call, requests := range journal {
		for _, request := range requests {
			if _, err := before.Add(call, request); err != nil {
				t.Fatal(err)
			}
		}
	}
	after, err := plugin.OpenJournal(folder)
	if err != nil {
		t.Fatal(err)
	}
	return d.Handlers(after)
}
