package driver_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/projectcalico/calico/libcalico-go/lib/options"

	"calico-lab/docker-driver/driver"
	"calico-lab/docker-driver/plugin"
)

// client sends calls to the network driver's socket and returns their errors.
type client map[string]http.Handler

func (c client) call(t *testing.T, name string, request any) string {
	t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	recorder := httptest.NewRecorder()
	c[driver.NetworkName].ServeHTTP(recorder, httptest.NewRequest("POST", "/"+name, bytes.NewReader(body)))
	var answer plugin.ErrorResponse
	if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Err
}

var netvByName = plugin.RequestPoolRequest{Options: map[string]string{"org.projectcalico.pool": "netv"}}

func TestRequestPoolRejectedByEngine(t *testing.T) {
	d, _ := assemble(t, newFake())
	c := client(handlersOf(t, d, nil))
	answer := ""
	for calls := 0; answer == "" && calls < 100; calls++ {
		answer = c.call(t, "IpamDriver.RequestPool", netvByName)
	}
	const want = "lies in it: add --subnet 192.168.0.0/16"
	if !strings.HasSuffix(answer, want) {
		t.Errorf("after 100 calls %q, not %q", answer, want)
	}
	byCIDR := plugin.RequestPoolRequest{Pool: "192.168.0.0/16"}
	if answer := c.call(t, "IpamDriver.RequestPool", byCIDR); answer != "" {
		t.Errorf("with --subnet: %s", answer)
	}
}

func TestRequestPoolByNameForManyNetworks(t *testing.T) {
	d, _ := assemble(t, newFake())
	c := client(handlersOf(t, d, nil))
	netv := plugin.PoolData{AddressSpace: "calico-local", Pool: "192.168.0.0/16"}
	network := plugin.CreateNetworkRequest{IPv4Data: []plugin.PoolData{netv}}
	for i := range 100 {
		network.NetworkID = "n" + strings.Repeat("n", i)
		if answer := c.call(t, "IpamDriver.RequestPool", netvByName); answer != "" {
			t.Fatalf("network %d: %s", i, answer)
		}
		if answer := c.call(t, "NetworkDriver.CreateNetwork", network); answer != "" {
			t.Fatalf("network %d: %s", i, answer)
		}
	}
}

var (
	poolData    = plugin.PoolData{AddressSpace: "calico-local", Pool: "10.70.0.0/24"}
	requestPool = plugin.RequestPoolRequest{
		Pool: "10.70.0.0/24", Options: map[string]string{"org.projectcalico.blocksize": "28"},
	}
)

// poolOf returns the pool with the CIDR, or nil.
func (f *fake) poolOf(cidr string) *v3.IPPool {
	for i := range f.pools {
		if f.pools[i].Spec.CIDR == cidr {
			return &f.pools[i]
		}
	}
	return nil
}

func TestReleasePoolInterrupted(t *testing.T) {
	cases := map[string]func(*testing.T, *driver.Driver, client){
		"completed by reconciliation": func(t *testing.T, d *driver.Driver, _ client) {
			if repaired, err := d.Reconciler.Once(t.Context()); err != nil || repaired["unregistered pool"] != 1 {
				t.Errorf("repaired %v, %v", repaired, err)
			}
		},
		"completed by the repeated call": func(t *testing.T, _ *driver.Driver, c client) {
			if answer := c.call(t, "IpamDriver.ReleasePool", plugin.ReleasePoolRequest{PoolID: poolData.Pool}); answer != "" {
				t.Error(answer)
			}
		},
	}
	for name, finish := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			d, _ := assemble(t, f)
			c := client(handlersOf(t, d, nil))
			if answer := c.call(t, "IpamDriver.RequestPool", requestPool); answer != "" {
				t.Fatal(answer)
			}
			f.failPoolDelete = true
			answer := c.call(t, "IpamDriver.ReleasePool", plugin.ReleasePoolRequest{PoolID: poolData.Pool})
			if pool := f.poolOf(poolData.Pool); answer == "" || pool == nil || !pool.Spec.Disabled {
				t.Fatalf("answer %q, pool %v", answer, pool)
			}
			f.failPoolDelete = false
			finish(t, d, c)
			if f.poolOf(poolData.Pool) != nil {
				t.Error("the pool still exists")
			}
		})
	}
}

func TestRequestPoolWhilePoolIsBeingRemoved(t *testing.T) {
	for name, removed := range map[string]bool{"removal ends": true, "removal does not end": false} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			d, _ := assemble(t, f)
			pool := createdPool(poolData.Pool, "a1")
			pool.Spec.Disabled = true
			f.pools = append(f.pools, pool)
			if removed {
				time.AfterFunc(50*time.Millisecond, func() {
					_, _ = fakePools{f}.Delete(t.Context(), "created", options.DeleteOptions{})
				})
			}
			answer := client(handlersOf(t, d, nil)).call(t, "IpamDriver.RequestPool", requestPool)
			if removed && answer != "" || !removed && !strings.HasPrefix(answer, "pool created 10.70.0.0/24 is being removed") {
				t.Error(answer)
			}
			if now := f.poolOf(poolData.Pool); removed && (now == nil || now.Spec.Disabled) {
				t.Errorf("the pool is %v", now)
			}
		})
	}
}

// A network is removed between RequestPool and CreateNetwork of another one on the same pool.
func TestDeleteNetworkKeepsPoolOfNetworkBeingCreated(t *testing.T) {
	f := newFake()
	d, _ := assemble(t, f)
	c := client(handlersOf(t, d, nil))
	for _, each := range []struct {
		call    string
		request any
	}{
		{"IpamDriver.RequestPool", requestPool},
		{"NetworkDriver.CreateNetwork", plugin.CreateNetworkRequest{NetworkID: "old", IPv4Data: []plugin.PoolData{poolData}}},
		{"IpamDriver.RequestPool", requestPool},
		{"IpamDriver.ReleasePool", plugin.ReleasePoolRequest{PoolID: poolData.Pool}},
		{"NetworkDriver.DeleteNetwork", plugin.NetworkRequest{NetworkID: "old"}},
		{"NetworkDriver.CreateNetwork", plugin.CreateNetworkRequest{NetworkID: "new", IPv4Data: []plugin.PoolData{poolData}}},
	} {
		if answer := c.call(t, each.call, each.request); answer != "" {
			t.Errorf("%s: %s", each.call, answer)
		}
	}
	if f.poolOf(poolData.Pool) == nil {
		t.Error("the pool does not exist")
	}
	c.call(t, "IpamDriver.ReleasePool", plugin.ReleasePoolRequest{PoolID: poolData.Pool})
	c.call(t, "NetworkDriver.DeleteNetwork", plugin.NetworkRequest{NetworkID: "new"})
	if f.poolOf(poolData.Pool) != nil {
		t.Error("the pool exists after its last network")
	}
}

func TestRequestPoolWhenRemovalBeginsAfterList(t *testing.T) {
	f := newFake()
	d, _ := assemble(t, f)
	f.pools = append(f.pools, createdPool(poolData.Pool, "a1"))
	f.onPoolList = func() {
		f.onPoolList = nil
		f.poolOf(poolData.Pool).Spec.Disabled = true
		time.AfterFunc(50*time.Millisecond, func() { _, _ = fakePools{f}.Delete(t.Context(), "created", options.DeleteOptions{}) })
	}
	if answer := client(handlersOf(t, d, nil)).call(t, "IpamDriver.RequestPool", requestPool); answer != "" {
		t.Error(answer)
	}
	if now := f.poolOf(poolData.Pool); now == nil || now.Spec.Disabled {
		t.Errorf("the pool is %v", now)
	}
}

// The driver is killed between the creation of a pool and the registration of this host.
func TestReconcileDeletesPoolOfInterruptedRequest(t *testing.T) {
	f := newFake()
	d, _ := assemble(t, f)
	f.onPoolCreate = func() { f.etcdDown = true }
	if answer := client(handlersOf(t, d, nil)).call(t, "IpamDriver.RequestPool", requestPool); answer == "" {
		t.Fatal("no error")
	}
	f.etcdDown = false
	if repaired, err := d.Reconciler.Once(t.Context()); err != nil || repaired["unregistered pool"] != 1 {
		t.Errorf("repaired %v, %v", repaired, err)
	}
}

func TestReconcileKeepsPoolWithAllocations(t *testing.T) {
	f := newFake()
	d, _ := assemble(t, f)
	f.pools = append(f.pools, createdPool(poolData.Pool, f.node))
	fakeAddresses{f}.allocate(netip.MustParseAddr("10.70.0.1"), "other-owner", "a1")
	if repaired, err := d.Reconciler.Once(t.Context()); err != nil || len(repaired) > 0 {
		t.Errorf("repaired %v, %v", repaired, err)
	}
	if f.poolOf(poolData.Pool) == nil {
		t.Error("the pool does not exist")
	}
}

// The network's record is rebuilt from its endpoints' addresses, which are not all in one pool.
func TestCreateEndpointRebuildsNetworkRecord(t *testing.T) {
	f := newFake()
	d, records := assemble(t, f)
	c := client(handlersOf(t, d, nil))
	for id, given := range map[string]struct{ address, pool string }{
		"aaaaaaaaaaaabbbb": {"192.168.0.100/32", "netv"}, "ccccccccccccdddd": {"10.50.0.1/32", "small"},
		"eeeeeeeeeeeeffff": {"192.168.0.101/32", "netv"},
	} {
		answer := c.call(t, "NetworkDriver.CreateEndpoint", plugin.CreateEndpointRequest{
			NetworkID: "n", EndpointID: id, Interface: &plugin.Interface{Address: given.address},
		})
		endpoint, err := d.Endpoints.Get(t.Context(), id)
		if answer != "" || err != nil {
			t.Fatal(answer, err)
		}
		equal(t, "profiles of "+given.address, endpoint.Spec.Profiles, []string{given.pool})
	}
	if network, _ := records.Network("n"); len(network.Pools) != 2 {
		t.Errorf("the network's pools are %v", network.Pools)
	}
}

// IPAM reads the pools itself. The driver lists them only for an error message.
func TestRequestAddressDoesNotListPools(t *testing.T) {
	f := newFake()
	d, _ := assemble(t, f)
	c := client(handlersOf(t, d, nil))
	for pool, want := range map[string]string{
		"192.168.0.0/16": "", "10.60.0.0/16": "10.60.0.0/16 is not an enabled Calico IPPool; the enabled pools are: ",
	} {
		before := f.poolLists.Load()
		answer := c.call(t, "IpamDriver.RequestAddress", plugin.RequestAddressRequest{PoolID: pool})
		if lists := f.poolLists.Load() - before; want == "" && (answer != "" || lists > 0) {
			t.Errorf("pool %s: listed %d times, %s", pool, lists, answer)
		}
		if want != "" && !strings.HasPrefix(answer, want) {
			t.Errorf("pool %s: %q, not %q", pool, answer, want)
		}
	}
}
