//go:build engine

package conformance

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/projectcalico/calico/libcalico-go/lib/options"

	"calico-lab/docker-driver/datastore"
)

func TestNetworkRefused(t *testing.T) {
	create := func(arguments ...string) []string {
		with := []string{"network", "create", "-d", "calico", "--ipam-driver", "calico-ipam"}
		return append(append(with, arguments...), "n")
	}
	subnet := []string{"--subnet", "192.168.0.0/16"}
	refused(t, "192.168.0.0/20 is not an enabled Calico IPPool; the enabled pools are: netv 192.168.0.0/16, netv6 "+
		"fd00:50::/64, small 10.50.0.0/28", create("--subnet", "192.168.0.0/20")...)
	refused(t, "needs --subnet with the CIDR of its pool", create()...)
	refused(t, "--ip-range 192.168.1.0/24", create(append(subnet, "--ip-range", "192.168.1.0/24")...)...)
	refused(t, "has no gateway address", create(append(subnet, "--gateway", "192.168.0.1")...)...)
	refused(t, "--aux-address", create(append(subnet, "--aux-address", "x=192.168.0.1")...)...)
	refused(t, "--internal", create(append(subnet, "--internal")...)...)
	refused(t, "-o colour: not an option", create(append(subnet, "-o", "colour=blue")...)...)
	refused(t, "an MTU is a number", create(append(subnet, "-o", "com.docker.network.driver.mtu=many")...)...)
	refused(t, "add --ipam-driver calico-ipam", "network", "create", "-d", "calico", "--subnet", "192.168.0.0/16", "n")
	consistent(t)
}

func TestContainers(t *testing.T) {
	netv(t)
	container(t, "c1", "--network", "netv")
	container(t, "c2", "--network", "netv", "--ip", "192.168.0.100")
	if got := address(t, "c2", "netv").String(); got != "192.168.0.100" {
		t.Errorf("--ip gave %s", got)
	}
	ping(t, "c1", "192.168.0.100")
	ping(t, "c2", address(t, "c1", "netv").String())
	ping(t, "c1", "10.99.0.1")
	// Docker's resolver works as on any other network.
	ping(t, "c1", "c2")
	routes := docker(t, "exec", "c2", "ip", "route")
	for _, route := range []string{"default via 169.254.1.1 dev eth0", "169.254.1.1 dev eth0 scope link",
		"192.168.0.0/16 via 169.254.1.1 dev eth0"} {
		if !strings.Contains(routes, route) {
			t.Errorf("no route %q in\n%s", route, routes)
		}
	}
	refused(t, "--ip 192.168.0.100: taken by container c2 on host a0", "run", "--rm", "--network", "netv", "--ip",
		"192.168.0.100", "box", "true")
	refused(t, "ddress 192.169.0.100", "run", "--rm", "--network", "netv", "--ip",
		"192.169.0.100", "box", "true")
	consistent(t)
	docker(t, "restart", "c2")
	if got := address(t, "c2", "netv").String(); got != "192.168.0.100" {
		t.Errorf("a restart gave %s", got)
	}
	docker(t, "stop", "c2")
	consistent(t)
	docker(t, "start", "c2")
	ping(t, "c1", "192.168.0.100")
	docker(t, "rm", "-f", "c1", "c2")
	consistent(t)
}

func TestMACAddress(t *testing.T) {
	const mac = "02:11:22:33:44:55"
	netv(t)
	create(t, "mac", map[string]any{
		"Image": "box", "Cmd": []string{"sleep", "100000"}, "StopSignal": "KILL", "MacAddress": mac,
		"HostConfig": map[string]any{"NetworkMode": "netv"},
		"NetworkingConfig": map[string]any{"EndpointsConfig": map[string]any{
			"netv": map[string]any{"MacAddress": mac},
		}},
	})
	docker(t, "start", "mac")
	if link := docker(t, "exec", "mac", "ip", "link", "show", "eth0"); !strings.Contains(link, mac) {
		t.Errorf("the MAC address differs:\n%s", link)
	}
	container(t, "other", "--network", "netv")
	stored, err := lab.endpoints.ListNode(t.Context())
	if err != nil || len(stored) != 2 {
		t.Fatalf("%d endpoints, %v", len(stored), err)
	}
	for _, endpoint := range stored {
		name := map[bool]string{true: "mac", false: "other"}[endpoint.Spec.MAC == mac]
		if link := docker(t, "exec", name, "ip", "link", "show", "eth0"); !strings.Contains(link, endpoint.Spec.MAC) {
			t.Errorf("endpoint has MAC address %s, %s has\n%s", endpoint.Spec.MAC, name, link)
		}
	}
	ping(t, "mac", address(t, "other", "netv").String())
}

func TestPoolFull(t *testing.T) {
	createNetwork(t, "small", "--subnet", "10.50.0.0/28")
	for i := range 16 {
		container(t, fmt.Sprintf("c%d", i), "--network", "small")
	}
	refused(t, "pool small 10.50.0.0/28 has no free address for host a0", "run", "--rm", "--network", "small", "box",
		"true")
	docker(t, "rm", "-f", "c7")
	container(t, "c7", "--network", "small")
	consistent(t)
}

func TestSeveralNetworks(t *testing.T) {
	netv(t)
	createNetwork(t, "small", "--subnet", "10.50.0.0/28", "-o", "com.docker.network.driver.mtu=1400")
	createNetwork(t, "again", "--subnet", "192.168.0.0/16")
	container(t, "on-netv", "--network", "netv")
	container(t, "on-small", "--network", "small")
	container(t, "on-again", "--network", "again")
	both := func(name string) {
		t.Helper()
		ping(t, name, address(t, "on-netv", "netv").String())
		ping(t, name, address(t, "on-small", "small").String())
		ping(t, "on-netv", address(t, name, "netv").String())
		ping(t, "on-small", address(t, name, "small").String())
		ping(t, name, "10.99.0.1")
	}
	container(t, "later", "--network", "netv")
	docker(t, "network", "connect", "small", "later")
	both("later")
	if link := docker(t, "exec", "later", "ip", "link", "show", "eth1"); !strings.Contains(link, "mtu 1400") {
		t.Errorf("the MTU differs:\n%s", link)
	}
	docker(t, "network", "disconnect", "small", "later")
	ping(t, "later", address(t, "on-netv", "netv").String())
	docker(t, "network", "connect", "small", "later")
	both("later")
	docker(t, "create", "--name", "before", "--network", "small", "--stop-signal", "KILL", "box", "sleep", "100000")
	docker(t, "network", "connect", "--ip", "192.168.0.77", "netv", "before")
	docker(t, "network", "connect", "bridge", "before")
	docker(t, "start", "before")
	both("before")
	ping(t, "before", address(t, "on-again", "again").String())
	refused(t, "conflicts with existing route", "network", "connect", "again", "before")
	both("before")
	consistent(t)
}

func TestDualStack(t *testing.T) {
	createNetwork(t, "dual", "--subnet", "192.168.0.0/16", "--ipv6", "--subnet", "fd00:50::/64")
	container(t, "c1", "--network", "dual")
	container(t, "c2", "--network", "dual", "--ip6", "fd00:50::77", "--ip", "192.168.0.100")
	ping(t, "c1", "fd00:50::77")
	ping(t, "c1", "192.168.0.100")
	ping(t, "c1", "fd00:99::1")
	refused(t, "--ip fd00:50::77: taken by container c2", "run", "--rm", "--network", "dual", "--ip6", "fd00:50::77",
		"box", "true")
	consistent(t)
}

func TestPublishedPorts(t *testing.T) {
	netv(t)
	createNetwork(t, "dual", "--subnet", "192.168.0.0/16", "--ipv6", "--subnet", "fd00:50::/64")
	serve := []string{"--stop-signal", "KILL", "box", "sh", "-c",
		"mkdir /www; echo it works >/www/index.html; exec httpd -f -h /www"}
	run := func(name string, arguments ...string) {
		t.Helper()
		docker(t, append(append([]string{"run", "-d", "--name", name}, arguments...), serve...)...)
	}
	fetch := func(from, port string) {
		t.Helper()
		script := `printf 'GET /index.html HTTP/1.0\r\n\r\n' | nc -w 5 10.99.0.1 ` + port
		if answer := docker(t, "exec", from, "sh", "-c", script); !strings.Contains(answer, "it works") {
			t.Errorf("%s gets %q from port %s", from, answer, port)
		}
	}
	run("web", "-p", "8080:80", "--network", "netv")
	run("dual", "-p", "8081-8089:80", "--network", "dual")
	container(t, "client", "--network", "dual")
	// For localhost programs try ::1 first.
	for _, url := range []string{"http://127.0.0.1:8080", "http://10.99.0.1:8080", "http://10.99.0.1:8081",
		"http://[fd00:99::1]:8081", "http://127.0.0.1:8081"} {
		err := until(func() error {
			response, err := http.Get(url)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if strings.TrimSpace(string(body)) != "it works" {
				return fmt.Errorf("%s answers %q, %v", url, body, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := net.DialTimeout("tcp", "[::1]:8081", 5*time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connection to ::1: %v", err)
	}
	for _, from := range []string{"client", "web"} {
		fetch(from, "8080")
	}
	refused(t, "publish 80/tcp on port 8080 of this host: the port is taken", append([]string{"run", "--rm", "-p",
		"8080:80", "--network", "netv"}, serve...)...)
	refused(t, "address already in use", append([]string{"run", "--rm", "-p", "8080:80"}, serve...)...)
	refused(t, "specify the host's port, as in -p 8080:80", append([]string{"run", "--rm", "-p", "80", "--network",
		"netv"}, serve...)...)
	refused(t, "the container has no address of this family on its network", append([]string{"run", "--rm", "-p",
		"[fd00:99::1]:8090:80", "--network", "netv"}, serve...)...)
	refused(t, "publish 80/tcp on 10.1.2.3:8090 of this host: ", append([]string{"run", "--rm", "-p",
		"10.1.2.3:8090:80", "--network", "netv"}, serve...)...)
	run("range", "-p", "8081-8089:80", "--network", "netv")
	fetch("client", "8082")
	docker(t, "rm", "-f", "web", "dual", "range")
	if left, err := rules(); err != nil || left != "" {
		t.Errorf("remaining rules: %v\n%s", err, left)
	}
	consistent(t)
}

// TestLoopbackRule sends packets from a container with changed routes to this host's 127.0.0.1, where the driver serves
// /readiness.
func TestLoopbackRule(t *testing.T) {
	netv(t)
	container(t, "c1", "--network", "netv")
	pid := inspect(t, "{{.State.Pid}}", "c1")
	script := `ip address flush dev lo && echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet &&
		ip route add 127.0.0.1 via 169.254.1.1 dev eth0 src ` + address(t, "c1", "netv").String() + ` &&
		printf 'GET /readiness HTTP/1.0\r\n\r\n' | busybox nc -w 3 127.0.0.1 9101`
	output, err := exec.Command("nsenter", "-t", pid, "-n", "sh", "-c", script).CombinedOutput()
	if err == nil || strings.TrimSpace(string(output)) != "nc: timed out" {
		t.Errorf("the container gets %q, %v", output, err)
	}
	if _, body := page(t, "/readiness"); !strings.Contains(body, version) {
		t.Errorf("this host gets %q", body)
	}
}

func TestLabels(t *testing.T) {
	netv(t)
	createNetwork(t, "small", "--subnet", "10.50.0.0/28")
	id := docker(t, "run", "-d", "--name", "web", "--stop-signal", "KILL", "--network", "netv", "-l",
		"org.projectcalico.label.role=web", "-l", "org.projectcalico.label.no/such/name=x", "box", "sleep", "100000")
	labelled := func(count int) func() error {
		return func() error {
			stored, err := lab.endpoints.ListNode(t.Context())
			if err != nil {
				return err
			}
			found := 0
			for _, endpoint := range stored {
				if endpoint.Labels["role"] == "web" && endpoint.Spec.ContainerID == id {
					found++
				}
			}
			if found != count {
				return fmt.Errorf("%d endpoints are labelled, not %d", found, count)
			}
			return nil
		}
	}
	if err := until(labelled(1)); err != nil {
		t.Error(err)
	}
	docker(t, "network", "connect", "small", "web")
	if err := until(labelled(2)); err != nil {
		t.Error(err)
	}
	docker(t, "rename", "web", "shop")
	err := until(func() error {
		_, err := lab.run("run", "--rm", "--network", "netv", "--ip", address(t, "shop", "netv").String(), "box", "true")
		if err == nil || !strings.Contains(err.Error(), "taken by container shop") {
			return fmt.Errorf("the old name: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestProfile(t *testing.T) {
	profiles := func() bool {
		_, err := lab.client.Profiles().Get(t.Context(), "netv", options.GetOptions{})
		if err != nil && !datastore.IsNotFound(err) {
			t.Fatal(err)
		}
		return err == nil
	}
	netv(t)
	if !profiles() {
		t.Error("no profile")
	}
	t.Run("two networks", func(t *testing.T) { createNetwork(t, "again", "--subnet", "192.168.0.0/16") })
	if !profiles() {
		t.Error("the profile was deleted with the first of two networks")
	}
	docker(t, "network", "rm", "netv")
	if profiles() {
		t.Error("the profile exists after the last network")
	}
	docker(t, "network", "create", "-d", "calico", "--ipam-driver", "calico-ipam", "--subnet", "192.168.0.0/16", "netv")
}
