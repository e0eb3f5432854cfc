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

// asker puts calls to the driver's IPAM socket and the network driver's, and returns what they were refused with.
type asker map[string]http.Handler

func (a asker) ask(t *testing.T, call string, request any) string {
	t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	recorder := httptest.NewRecorder()
	a[driver.NetworkName].ServeHTTP(recorder, httptest.NewRequest("POST", "/"+call, bytes.NewReader(body)))
	var answer plugin.ErrorResponse
	if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Err
}

var netvByName = plugin.RequestPoolRequest{Options: map[string]string{"org.projectcalico.pool": "netv"}}

func TestAnEngineThatTakesNoPool(t *testing.T) {
	whole, _ := assemble(t, newFake())
	asker := asker(handlersOf(t, whole, nil))
	answer := ""
	for asked := 0; answer == "" && asked < 100; asked++ {
		answer = asker.ask(t, "IpamDriver.RequestPool", netvByName)
	}
	const want = "lies in it: add --subnet 192.168.0.0/16"
	if !strings.HasSuffix(answer, want) {
		t.Errorf("after 100 questions %q, not %q", answer, want)
	}
	byCIDR := plugin.RequestPoolRequest{Pool: "192.168.0.0/16"}
	if answer := asker.ask(t, "IpamDriver.RequestPool", byCIDR); answer != "" {
		t.Errorf("with --subnet: %s", answer)
	}
}

func TestManyNetworksOnAPoolByName(t *testing.T) {
	whole, _ := assemble(t, newFake())
	asker := asker(handlersOf(t, whole, nil))
	netv := plugin.PoolData{AddressSpace: "calico-local", Pool: "192.168.0.0/16"}
	network := plugin.CreateNetworkRequest{IPv4Data: []plugin.PoolData{netv}}
	for i := range 100 {
		network.NetworkID = "n" + strings.Repeat("n", i)
		if answer := asker.ask(t, "IpamDriver.RequestPool", netvByName); answer != "" {
			t.Fatalf("network %d: %s", i, answer)
		}
		if answer := asker.ask(t, "NetworkDriver.CreateNetwork", network); answer != "" {
			t.Fatalf("network %d: %s", i, answer)
		}
	}
}

var (
	made        = plugin.PoolData{AddressSpace: "calico-local", Pool: "10.70.0.0/24"}
	requestMade = plugin.RequestPoolRequest{
		Pool: "10.70.0.0/24", Options: map[string]string{"org.projectcalico.blocksize": "28"},
	}
)

// poolOf returns the pool that was made, or nil.
func (f *fake) poolOf(cidr string) *v3.IPPool {
	for i := range f.pools {
		if f.pools[i].Spec.CIDR == cidr {
			return &f.pools[i]
		}
	}
	return nil
}

func TestARemovalOfAPoolThatWasInterrupted(t *testing.T) {
	ways := map[string]func(*testing.T, *driver.Driver, asker){
		"is finished by reconciliation": func(t *testing.T, whole *driver.Driver, _ asker) {
			if mended, err := whole.Reconciler.Once(t.Context()); err != nil || mended["gave up pool"] != 1 {
				t.Errorf("mended %v, %v", mended, err)
			}
		},
		"is finished by the same call again": func(t *testing.T, _ *driver.Driver, asker asker) {
			if answer := asker.ask(t, "IpamDriver.ReleasePool", plugin.ReleasePoolRequest{PoolID: made.Pool}); answer != "" {
				t.Error(answer)
			}
		},
	}
	for name, finish := range ways {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			whole, _ := assemble(t, f)
			asker := asker(handlersOf(t, whole, nil))
			if answer := asker.ask(t, "IpamDriver.RequestPool", requestMade); answer != "" {
				t.Fatal(answer)
			}
			f.interrupted = true
			answer := asker.ask(t, "IpamDriver.ReleasePool", plugin.ReleasePoolRequest{PoolID: made.Pool})
			if pool := f.poolOf(made.Pool); answer == "" || pool == nil || !pool.Spec.Disabled {
				t.Fatalf("answer %q, pool %v", answer, pool)
			}
			f.interrupted = false
			finish(t, whole, asker)
			if f.poolOf(made.Pool) != nil {
				t.Error("the pool is still there")
			}
		})
	}
}

func TestAPoolIsMadeAgainWhileItIsBeingRemoved(t *testing.T) {
	for name, gone := range map[string]bool{"another host finishes": true, "nobody finishes": false} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			whole, _ := assemble(t, f)
			pool := madePool(made.Pool, "a1")
			pool.Spec.Disabled = true
			f.pools = append(f.pools, pool)
			if gone {
				time.AfterFunc(50*time.Millisecond, func() {
					_, _ = fakePools{f}.Delete(t.Context(), "made", options.DeleteOptions{})
				})
			}
			answer := asker(handlersOf(t, whole, nil)).ask(t, "IpamDriver.RequestPool", requestMade)
			if gone && answer != "" || !gone && !strings.HasPrefix(answer, "pool made 10.70.0.0/24 is being removed") {
				t.Error(answer)
			}
			if now := f.poolOf(made.Pool); gone && (now == nil || now.Spec.Disabled) {
				t.Errorf("the pool is %v", now)
			}
		})
	}
}

// A network is removed between the question for another one's pool and its creation.
func TestAPoolStaysForANetworkThatIsBeingCreated(t *testing.T) {
	f := newFake()
	whole, _ := assemble(t, f)
	asker := asker(handlersOf(t, whole, nil))
	for _, each := range []struct {
		call    string
		request any
	}{
		{"IpamDriver.RequestPool", requestMade},
		{"NetworkDriver.CreateNetwork", plugin.CreateNetworkRequest{NetworkID: "old", IPv4Data: []plugin.PoolData{made}}},
		{"IpamDriver.RequestPool", requestMade},
		{"IpamDriver.ReleasePool", plugin.ReleasePoolRequest{PoolID: made.Pool}},
		{"NetworkDriver.DeleteNetwork", plugin.NetworkRequest{NetworkID: "old"}},
		{"NetworkDriver.CreateNetwork", plugin.CreateNetworkRequest{NetworkID: "new", IPv4Data: []plugin.PoolData{made}}},
	} {
		if answer := asker.ask(t, each.call, each.request); answer != "" {
			t.Errorf("%s: %s", each.call, answer)
		}
	}
	if f.poolOf(made.Pool) == nil {
		t.Error("the pool is gone")
	}
	asker.ask(t, "IpamDriver.ReleasePool", plugin.ReleasePoolRequest{PoolID: made.Pool})
	asker.ask(t, "NetworkDriver.DeleteNetwork", plugin.NetworkRequest{NetworkID: "new"})
	if f.poolOf(made.Pool) != nil {
		t.Error("the pool stayed after its last network")
	}
}

func TestAPoolWhoseRemovalBeginsAfterTheLook(t *testing.T) {
	f := newFake()
	whole, _ := assemble(t, f)
	f.pools = append(f.pools, madePool(made.Pool, "a1"))
	f.listed = func() {
		f.listed = nil
		f.poolOf(made.Pool).Spec.Disabled = true
		time.AfterFunc(50*time.Millisecond, func() { _, _ = fakePools{f}.Delete(t.Context(), "made", options.DeleteOptions{}) })
	}
	if answer := asker(handlersOf(t, whole, nil)).ask(t, "IpamDriver.RequestPool", requestMade); answer != "" {
		t.Error(answer)
	}
	if now := f.poolOf(made.Pool); now == nil || now.Spec.Disabled {
		t.Errorf("the pool is %v", now)
	}
}

// The driver is killed between making a pool and noting that this host uses it.
func TestAPoolThatWasJustMadeIsKnownAsThisHosts(t *testing.T) {
	f := newFake()
	whole, _ := assemble(t, f)
	f.made = func() { f.down = true }
	if answer := asker(handlersOf(t, whole, nil)).ask(t, "IpamDriver.RequestPool", requestMade); answer == "" {
		t.Fatal("the pool was noted")
	}
	f.down = false
	if mended, err := whole.Reconciler.Once(t.Context()); err != nil || mended["gave up pool"] != 1 {
		t.Errorf("mended %v, %v", mended, err)
	}
}

func TestAPoolWithAddressesInUseIsNotMended(t *testing.T) {
	f := newFake()
	whole, _ := assemble(t, f)
	f.pools = append(f.pools, madePool(made.Pool, f.node))
	fakeAddresses{f}.allocate(netip.MustParseAddr("10.70.0.1"), "somebody", "a1")
	if mended, err := whole.Reconciler.Once(t.Context()); err != nil || len(mended) > 0 {
		t.Errorf("mended %v, %v", mended, err)
	}
	if f.poolOf(made.Pool) == nil {
		t.Error("the pool is gone")
	}
}

// The record of a network that was lost is made again from its endpoints' addresses, which are not all of one pool.
func TestANetworkWithoutRecordLearnsItsPoolsOneByOne(t *testing.T) {
	f := newFake()
	whole, records := assemble(t, f)
	asker := asker(handlersOf(t, whole, nil))
	for id, given := range map[string]struct{ address, pool string }{
		"aaaaaaaaaaaabbbb": {"192.168.0.100/32", "netv"}, "ccccccccccccdddd": {"10.50.0.1/32", "small"},
		"eeeeeeeeeeeeffff": {"192.168.0.101/32", "netv"},
	} {
		answer := asker.ask(t, "NetworkDriver.CreateEndpoint", plugin.CreateEndpointRequest{
			NetworkID: "n", EndpointID: id, Interface: &plugin.Interface{Address: given.address},
		})
		endpoint, err := whole.Endpoints.Get(t.Context(), id)
		if answer != "" || err != nil {
			t.Fatal(answer, err)
		}
		equal(t, "profiles of "+given.address, endpoint.Spec.Profiles, []string{given.pool})
	}
	if network, _ := records.Network("n"); len(network.Pools) != 2 {
		t.Errorf("the network's pools are %v", network.Pools)
	}
}

// IPAM knows the pools itself. The ordinary start of a container asks for them no second time.
func TestTheNextFreeAddressNeedsNoPools(t *testing.T) {
	f := newFake()
	whole, _ := assemble(t, f)
	asker := asker(handlersOf(t, whole, nil))
	for pool, want := range map[string]string{
		"192.168.0.0/16": "", "10.60.0.0/16": "10.60.0.0/16 is not an enabled Calico IPPool; the enabled pools are: ",
	} {
		before := f.questions.Load()
		answer := asker.ask(t, "IpamDriver.RequestAddress", plugin.RequestAddressRequest{PoolID: pool})
		if asked := f.questions.Load() - before; want == "" && (answer != "" || asked > 0) {
			t.Errorf("pool %s: %d questions, %s", pool, asked, answer)
		}
		if want != "" && !strings.HasPrefix(answer, want) {
			t.Errorf("pool %s: %q, not %q", pool, answer, want)
		}
	}
}
