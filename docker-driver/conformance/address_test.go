//go:build engine

package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"calico-lab/docker-driver/plugin"
)

// slowStart is longer than the usual time between RequestAddress and CreateEndpoint, and two comparisons of a
// reconciliation.
const slowStart = 20 * time.Second

// pluginClient makes calls of the plugin API.
var pluginClient = &http.Client{Transport: &http.Transport{
	DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", "/run/docker/plugins/calico.sock")
	},
}}

func call(name string, request, response any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	reply, err := pluginClient.Post("http://driver/"+name, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(reply.Body); err != nil {
		return err
	}
	var failed struct{ Err string }
	if err := json.Unmarshal(text.Bytes(), &failed); err != nil || failed.Err != "" {
		return errors.Join(err, fmt.Errorf("%s: %s", name, failed.Err))
	}
	return json.Unmarshal(text.Bytes(), response)
}

// TestAddressOfSlowStart waits between RequestAddress and CreateEndpoint, as an engine does that waits for an address of the
// other family. Meanwhile failed calls cause reconciliations.
func TestAddressOfSlowStart(t *testing.T) {
	netv(t)
	id := inspect(t, "{{.Id}}", "netv")
	var slow plugin.RequestAddressResponse
	must(t, call("IpamDriver.RequestAddress", plugin.RequestAddressRequest{PoolID: "192.168.0.0/16"}, &slow))
	for deadline := time.Now().Add(slowStart); time.Now().Before(deadline); time.Sleep(time.Second) {
		// A failed call requests a reconciliation.
		refused(t, "has no gateway address", "network", "create", "-d", "calico", "--ipam-driver", "calico-ipam",
			"--subnet", "192.168.0.0/16", "--gateway", "192.168.0.1", "n")
	}
	own := netip.MustParsePrefix(slow.Address).Addr()
	allocations, _, err := lab.blocks.Allocations(t.Context(), node, "")
	must(t, err)
	allocated := false
	for _, each := range allocations {
		allocated = allocated || each.Address == own
	}
	if !allocated {
		t.Errorf("address %s was released before CreateEndpoint", own)
	}
	endpoint := plugin.EndpointRequest{NetworkID: id, EndpointID: strings.Repeat("5", 64)}
	must(t, call("NetworkDriver.CreateEndpoint", plugin.CreateEndpointRequest{
		NetworkID: id, EndpointID: endpoint.EndpointID, Interface: &plugin.Interface{Address: slow.Address},
	}, &plugin.CreateEndpointResponse{}))
	must(t, call("NetworkDriver.DeleteEndpoint", endpoint, &plugin.Empty{}))
	must(t, call("IpamDriver.ReleaseAddress", plugin.ReleaseAddressRequest{
		PoolID: "192.168.0.0/16", Address: own.String(),
	}, &plugin.Empty{}))
	consistent(t)
}

// TestEtcdHangsWhileContainersStart stops etcd for longer than the usual time between two calls of an engine.
func TestEtcdHangsWhileContainersStart(t *testing.T) {
	netv(t)
	var group sync.WaitGroup
	failures := make(chan error, 8)
	for i := range cap(failures) {
		group.Go(func() {
			time.Sleep(time.Duration(i) * 100 * time.Millisecond)
			_, err := lab.run("run", "-d", "--name", fmt.Sprintf("c%d", i), "--stop-signal", "KILL", "--network", "netv",
				"box", "sleep", "100000")
			failures <- err
		})
	}
	time.Sleep(400 * time.Millisecond)
	must(t, lab.etcd.signal(syscall.SIGSTOP))
	time.Sleep(slowStart)
	must(t, lab.etcd.signal(syscall.SIGCONT))
	group.Wait()
	close(failures)
	for err := range failures {
		if err != nil {
			t.Errorf("a container that was started while etcd hung: %v", err)
		}
	}
	owners := map[netip.Addr]string{}
	for i := range cap(failures) {
		name := fmt.Sprintf("c%d", i)
		own := address(t, name, "netv")
		if owners[own] != "" {
			t.Errorf("%s and %s have address %s", owners[own], name, own)
		}
		owners[own] = name
	}
	consistent(t)
}

// TestEtcdHangsLongerThanStartTimeout checks the error, and that nothing is leaked.
func TestEtcdHangsLongerThanStartTimeout(t *testing.T) {
	netv(t)
	must(t, lab.etcd.signal(syscall.SIGSTOP))
	_, complaint, err := attempt("run", "-d", "--name", "c1", "--network", "netv", "box", "sleep", "100000")
	must(t, lab.etcd.signal(syscall.SIGCONT))
	for _, part := range []string{"etcd (" + etcdURL + ") did not answer within", "check the members' health"} {
		if err == nil || !strings.Contains(complaint, part) {
			t.Errorf("%v, %q, not: %s", err, complaint, part)
		}
	}
	docker(t, "rm", "-f", "c1")
	container(t, "c1", "--network", "netv")
	consistent(t)
}
