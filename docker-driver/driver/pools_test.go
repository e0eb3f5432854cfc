package driver_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

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
