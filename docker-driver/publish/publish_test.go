package publish_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"calico-lab/docker-driver/plugin"
	"calico-lab/docker-driver/publish"
	"calico-lab/docker-driver/store"
	"calico-lab/docker-driver/workload"
)

// host simulates iptables, the ports and the interfaces.
type host struct {
	// rules is the last input of iptables-restore. jumps are the rules in the built-in chains.
	rules  string
	jumps  []string
	broken error
	// reserved are the reserved ports as protocol:address:port.
	reserved []string
	detached []string
}

func (h *host) run(_ context.Context, input, program string, arguments ...string) error {
	if strings.HasPrefix(program, "ip6") {
		return errors.New("no IPv6 here")
	}
	words := strings.Join(slices.DeleteFunc(arguments, func(word string) bool { return word == "-w" }), " ")
	for _, action := range []string{"-C", "-A", "-D"} {
		table, rule, is := strings.Cut(words, " "+action+" ")
		if !is {
			continue
		}
		rule = table + " " + rule
		switch {
		case action == "-A":
			h.jumps = append(h.jumps, rule)
		case !slices.Contains(h.jumps, rule):
			return errors.New("no such rule")
		case action == "-D":
			h.jumps = slices.DeleteFunc(h.jumps, func(each string) bool { return each == rule })
		}
		return nil
	}
	switch {
	case h.broken != nil && input != "":
		return h.broken
	case input != "":
		h.rules = input
	case strings.Contains(words, "-L") && h.rules == "":
		return errors.New("no such chain")
	case strings.Contains(words, "-X"):
		h.rules = ""
	}
	return nil
}

type release func()

func (r release) Close() error {
	r()
	return nil
}

func (h *host) reserve(protocol string, at netip.AddrPort) (io.Closer, error) {
	name := protocol + ":" + at.String()
	switch {
	case protocol == "sctp":
		return io.NopCloser(nil), nil
	case slices.Contains(h.reserved, name):
		return nil, syscall.EADDRINUSE
	case at.Addr() == netip.MustParseAddr("10.1.2.3"):
		return nil, syscall.EADDRNOTAVAIL
	}
	h.reserved = append(h.reserved, name)
	return release(func() { h.reserved = slices.DeleteFunc(h.reserved, func(each string) bool { return each == name }) }), nil
}

func (h *host) hasInterface(name string) bool { return !slices.Contains(h.detached, name) }

func portsOf(t *testing.T, h *host) *publish.Ports {
	t.Helper()
	records, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &publish.Ports{Store: records, Run: h.run, HasInterface: h.hasInterface, Reserve: h.reserve}
}

var (
	one = []netip.Addr{netip.MustParseAddr("192.168.0.1")}
	two = []netip.Addr{netip.MustParseAddr("192.168.0.2")}
)

func binding(protocol uint8, hostAddress string) []plugin.PortBinding {
	return []plugin.PortBinding{{Proto: protocol, Port: 80, HostIP: hostAddress, HostPort: 8080, HostPortEnd: 8080}}
}

func TestUnpublishAfterFailure(t *testing.T) {
	retries := map[string]func(*publish.Ports) error{
		"by the same call": func(p *publish.Ports) error { return p.Unpublish("one") },
		"by a new driver": func(p *publish.Ports) error {
			return (&publish.Ports{Store: p.Store, Run: p.Run, HasInterface: p.HasInterface, Reserve: p.Reserve}).Restore()
		},
		"by reconciliation": func(p *publish.Ports) error { return p.Reapply() },
	}
	for name, retry := range retries {
		t.Run(name, func(t *testing.T) {
			h := &host{}
			ports := portsOf(t, h)
			if err := ports.Publish("one", one, binding(6, "")); err != nil {
				t.Fatal(err)
			}
			h.broken = errors.New("another program has the lock")
			if err := ports.Unpublish("one"); err == nil {
				t.Error("no error")
			}
			h.broken = nil
			if err := retry(ports); err != nil {
				t.Error(err)
			}
			if h.rules != "" {
				t.Errorf("remaining rules: %s", h.rules)
			}
		})
	}
}

func TestReapplyFlushedRules(t *testing.T) {
	h := &host{}
	ports := portsOf(t, h)
	if err := ports.Publish("one", one, binding(6, "")); err != nil {
		t.Fatal(err)
	}
	h.rules, h.jumps = "", nil
	if err := ports.Reapply(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(h.rules, "--to-destination 192.168.0.1:80") || len(h.jumps) < 3 {
		t.Errorf("rules %s, jumps %q", h.rules, h.jumps)
	}
}

func TestPublishPortOfDetachedEndpoint(t *testing.T) {
	h := &host{}
	ports := portsOf(t, h)
	if err := ports.Publish("one", one, binding(6, "")); err != nil {
		t.Fatal(err)
	}
	h.detached = []string{workload.HostInterface("one")}
	if err := ports.Publish("two", two, binding(6, "")); err != nil {
		t.Error(err)
	}
	if !strings.Contains(h.rules, "192.168.0.2:80") || strings.Contains(h.rules, "192.168.0.1:80") {
		t.Errorf("rules %s", h.rules)
	}
}

func TestPublishRefused(t *testing.T) {
	cases := map[string]struct {
		// first is published before second.
		first, second []plugin.PortBinding
		want          string
	}{
		"SCTP port in use": {binding(132, ""), binding(132, ""),
			"publish 80/sctp on port 8080 of this host: the port is taken (address already in use by another container"},
		"SCTP port in use on all addresses": {binding(132, ""), binding(132, "10.99.0.1"),
			"publish 80/sctp on port 8080 of this host: the port is taken (address already in use by another container"},
		"IPv6 address on an IPv4 network": {nil, binding(6, "fd00::1"),
			"publish 80/tcp on fd00::1: the container has no address of this family"},
		"address of another host": {nil, binding(6, "10.1.2.3"),
			"publish 80/tcp on 10.1.2.3:8080 of this host: cannot assign requested address"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			ports := portsOf(t, &host{})
			if err := ports.Publish("one", one, c.first); err != nil {
				t.Fatal(err)
			}
			if err := ports.Publish("two", two, c.second); err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("error %v, not %q", err, c.want)
			}
			if published := ports.Store.Published()["two"]; published != nil {
				t.Errorf("stored ports: %v", published)
			}
		})
	}
}

func TestPublishWithoutCollision(t *testing.T) {
	for name, second := range map[string][]plugin.PortBinding{
		"other protocol": binding(17, ""), "all IPv6 addresses": binding(6, "::"), "same endpoint again": nil,
	} {
		t.Run(name, func(t *testing.T) {
			ports := portsOf(t, &host{})
			if err := ports.Publish("one", one, binding(132, "")); err != nil {
				t.Fatal(err)
			}
			id := "two"
			if second == nil {
				id, second = "one", binding(132, "")
			}
			if err := ports.Publish(id, two, second); err != nil {
				t.Error(err)
			}
		})
	}
}

// Reserve reserves the port, also when connections are in TIME_WAIT. Connections to ::1, where DNAT does not apply, are
// refused.
func TestReserve(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			listener, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			at := listener.Addr().(*net.TCPAddr).AddrPort()
			leaveTimeWait(t, listener)
			socket, err := publish.Reserve("tcp", at)
			if err != nil {
				t.Fatalf("a port with connections in TIME_WAIT: %v", err)
			}
			if _, err := publish.Reserve("tcp", at); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("reserved twice: %v", err)
			}
			if _, err := net.Listen("tcp", at.String()); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("another program can bind it: %v", err)
			}
			_, err = net.DialTimeout("tcp", at.String(), time.Second)
			if at.Addr().Is6() && !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("connection to ::1: %v", err)
			}
			if err := socket.Close(); err != nil {
				t.Error(err)
			}
			if listener, err := net.Listen("tcp", at.String()); err != nil {
				t.Errorf("not released: %v", err)
			} else {
				_ = listener.Close()
			}
		})
	}
}

// leaveTimeWait leaves a connection in TIME_WAIT: it closes the server's side first.
func leaveTimeWait(t *testing.T, listener net.Listener) {
	t.Helper()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []io.Closer{server, listener} {
		if err := end.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestLoopbackRule(t *testing.T) {
	const rule = "-t raw PREROUTING -i cali+ -d 127.0.0.0/8 -m comment --comment calico-docker-driver -j DROP"
	h := &host{}
	ports := portsOf(t, h)
	for step, run := range []func() error{ports.Restore, ports.Restore, func() error {
		h.jumps = nil
		return ports.Reapply()
	}} {
		if err := run(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(h.jumps, []string{rule}) {
			t.Errorf("step %d: %q", step, h.jumps)
		}
	}
}
