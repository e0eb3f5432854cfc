// Package publish lets ports of this host lead to containers, by ordinary DNAT in chains of its own. It owes that the
// rules are always those of the record: they are written as a whole, and gone with the last published port.
package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"calico-lab/docker-driver/plugin"
	"calico-lab/docker-driver/store"
	"calico-lab/docker-driver/workload"
)

// The chains, and where the kernel comes to them. Packets to an address of this host are sent to the container;
// those that would come back to where they came from get this host's address, so that the answer comes back too.
const (
	destinationChain = "DOCKER-CALICO"
	sourceChain      = "DOCKER-CALICO-POST"
)

// patience bounds one call of iptables, which waits for its lock.
const patience = 20 * time.Second

var protocols = map[uint8]string{6: "tcp", 17: "udp", 132: "sctp"}

// Runner runs a program with the text as its input.
type Runner func(ctx context.Context, input string, program string, arguments ...string) error

// Run is the Runner of this host.
func Run(ctx context.Context, input string, program string, arguments ...string) error {
	command := exec.CommandContext(ctx, program, arguments...)
	command.Stdin = strings.NewReader(input)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := command.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(arguments, " "), err, strings.TrimSpace(output.String()))
	}
	return nil
}

// Ports are the published ports of this host.
type Ports struct {
	Store *store.Store
	Run   Runner
	// Attached tells whether the host has the interface of that name.
	Attached func(name string) bool
	// Hold takes the host's port, so that nobody else does, or tells why it cannot be had.
	Hold  func(protocol string, at netip.AddrPort) (io.Closer, error)
	mutex sync.Mutex
	held  map[string][]io.Closer
	// dirty tells that the rules may be other than those of the record.
	dirty bool
}

// Publish makes the ports lead to the endpoint's addresses.
func (p *Ports) Publish(endpointID string, addresses []netip.Addr, bindings []plugin.PortBinding) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if err := p.forgetDetached(endpointID); err != nil {
		return err
	}
	p.letGo(endpointID)
	others := p.others(endpointID)
	var ports []store.Port
	for _, binding := range bindings {
		found, held, err := p.choose(binding, addresses, slices.Concat(others, ports))
		if err != nil {
			p.letGo(endpointID)
			return err
		}
		ports = append(ports, found...)
		p.keep(endpointID, held...)
	}
	if err := p.Store.SetPublished(endpointID, ports); err != nil {
		p.letGo(endpointID)
		return err
	}
	if err := p.apply(); err != nil {
		p.letGo(endpointID)
		return errors.Join(err, p.Store.SetPublished(endpointID, nil), p.apply())
	}
	return nil
}

// Withdraw takes the endpoint's ports back; none is no error.
func (p *Ports) Withdraw(endpointID string) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.letGo(endpointID)
	if _, published := p.Store.Published()[endpointID]; !published && !p.dirty {
		return nil
	}
	if err := p.Store.SetPublished(endpointID, nil); err != nil {
		return err
	}
	return p.apply()
}

// Restore holds the ports of the record and writes their rules, which a reboot removed. Rules that the record does not
// have are removed, also when it has none at all.
func (p *Ports) Restore() error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if err := p.forgetDetached(""); err != nil {
		return err
	}
	var failed error
	for endpointID, ports := range p.Store.Published() {
		for _, port := range ports {
			held, err := p.Hold(port.Protocol, port.At())
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("port %s is not held for its container: %w", port.At(), err))
				continue
			}
			p.keep(endpointID, held)
		}
	}
	return errors.Join(failed, p.applyShield(), p.apply())
}

// Renew writes the rules of the record once more, because somebody else's flush may have removed them.
func (p *Ports) Renew() error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return errors.Join(p.applyShield(), p.apply())
}

// Published returns the IDs of the endpoints with ports on record.
func (p *Ports) Published() []string { return slices.Collect(maps.Keys(p.Store.Published())) }

func (p *Ports) keep(endpointID string, held ...io.Closer) {
	if p.held == nil {
		p.held = map[string][]io.Closer{}
	}
	p.held[endpointID] = append(p.held[endpointID], held...)
}

func (p *Ports) letGo(endpointID string) {
	closeAll(p.held[endpointID])
	delete(p.held, endpointID)
}

func closeAll(held []io.Closer) {
	for _, each := range held {
		// A socket that nothing was sent on has nothing to lose by a failing close.
		_ = each.Close()
	}
}

// forgetDetached drops the records of endpoints that went while nobody could tell the driver, as in a reboot.
func (p *Ports) forgetDetached(except string) error {
	for endpointID := range p.Store.Published() {
		if endpointID != except && !p.Attached(workload.HostInterface(endpointID)) {
			p.letGo(endpointID)
			if err := p.Store.SetPublished(endpointID, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// others are the ports of other endpoints.
func (p *Ports) others(than string) []store.Port {
	var all []store.Port
	for endpointID, ports := range p.Store.Published() {
		if endpointID != than {
			all = append(all, ports...)
		}
	}
	return all
}

// choose takes the host's ports for one binding: one for each family in which it applies, all of the same number.
func (p *Ports) choose(
	b plugin.PortBinding, to []netip.Addr, others []store.Port,
) ([]store.Port, []io.Closer, error) {
	protocol, known := protocols[b.Proto]
	if !known {
		return nil, nil, fmt.Errorf("publish port %d: protocol number %d cannot be published", b.Port, b.Proto)
	}
	if b.HostPort == 0 {
		return nil, nil, fmt.Errorf("publish %d/%s: on a Calico network say which port of the host, as in -p 8080:%d; "+
			"Docker could not show one of the driver's choice", b.Port, protocol, b.Port)
	}
	var host netip.Addr
	if b.HostIP != "" {
		parsed, err := netip.ParseAddr(b.HostIP)
		if err != nil {
			return nil, nil, fmt.Errorf("publish %d/%s on %q: %w", b.Port, protocol, b.HostIP, err)
		}
		host = parsed.Unmap()
	}
	var refusal error
	for number := int(b.HostPort); number <= max(int(b.HostPort), int(b.HostPortEnd)); number++ {
		var ports []store.Port
		for _, address := range to {
			if host.IsValid() && host.Is4() != address.Is4() {
				continue
			}
			port := store.Port{
				Protocol: protocol, HostPort: uint16(number), Container: address, ContainerPort: b.Port,
			}
			if host.IsValid() && !host.IsUnspecified() {
				port.HostAddress = host
			}
			ports = append(ports, port)
		}
		if len(ports) == 0 && host.IsValid() && !host.IsUnspecified() {
			return nil, nil, fmt.Errorf("publish %d/%s on %s: the container has no address of this family on its network",
				b.Port, protocol, host)
		}
		var held []io.Closer
		if held, refusal = p.hold(ports, others); refusal == nil {
			return ports, held, nil
		}
	}
	return nil, nil, refusal
}

// errOtherContainer is why a port is taken that no socket holds, as of SCTP, which Go's library does not have.
var errOtherContainer = fmt.Errorf("%w by another container of a Calico network", syscall.EADDRINUSE)

// hold takes all of the ports or none.
func (p *Ports) hold(ports, others []store.Port) ([]io.Closer, error) {
	var held []io.Closer
	for _, port := range ports {
		one, err := p.holdOne(port, others)
		if err == nil {
			held = append(held, one)
			continue
		}
		closeAll(held)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("publish %d/%s on %s of this host: %w", port.ContainerPort, port.Protocol, port.At(), err)
		}
		return nil, fmt.Errorf("publish %d/%s on port %d of this host: the port is taken (%w); look with "+
			"docker ps and ss -lntup", port.ContainerPort, port.Protocol, port.HostPort, err)
	}
	return held, nil
}

func (p *Ports) holdOne(port store.Port, others []store.Port) (io.Closer, error) {
	if slices.ContainsFunc(others, port.Collides) {
		return nil, errOtherContainer
	}
	return p.Hold(port.Protocol, port.At())
}

// Hold takes a port of this host by listening on it, which ss shows. Nothing arrives at an address from where there is
// DNAT, which comes first.
func Hold(protocol string, at netip.AddrPort) (io.Closer, error) {
	family := "6"
	if at.Addr().Is4() {
		family = "4"
	}
	switch protocol {
	case "tcp":
		listener, err := net.Listen(protocol+family, at.String())
		if err != nil || at.Addr().Is4() {
			return listener, err
		}
		if err := refuse(listener.(*net.TCPListener)); err != nil {
			return nil, errors.Join(err, listener.Close())
		}
		return listener, nil
	case "udp":
		return net.ListenPacket(protocol+family, at.String())
	default:
		return io.NopCloser(nil), nil
	}
}

// refuse makes the socket refuse connections and keep its port. There is no DNAT from ::1, and whoever tries that address
// of localhost first has to hear that nobody is there, in order to try the other one. The socket has to listen before:
// one that was only ever bound shares its port with others, or else cannot have one with connections that ended lately.
func refuse(listener *net.TCPListener) error {
	socket, err := listener.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = socket.Control(func(descriptor uintptr) {
		failed = errors.Join(unix.SetsockoptInt(int(descriptor), unix.SOL_SOCKET, unix.SO_REUSEADDR, 0),
			unix.Shutdown(int(descriptor), unix.SHUT_RDWR))
	})
	return errors.Join(err, failed)
}

// apply makes the kernel's rules those of the record, in one transaction for each family.
func (p *Ports) apply() error {
	published := p.Store.Published()
	err := errors.Join(p.applyFamily("iptables", rules(published, true)),
		p.applyFamily("ip6tables", rules(published, false)))
	p.dirty = err != nil
	return err
}

func (p *Ports) applyFamily(program string, rules []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if len(rules) == 0 && p.Run(ctx, "", program, "-w", "-t", "nat", "-n", "-L", destinationChain) != nil {
		// Nothing to publish and no chain to remove, or no support for the family, which then publishes nothing.
		return nil
	}
	document := "*nat\n:" + destinationChain + " - [0:0]\n:" + sourceChain + " - [0:0]\n" +
		strings.Join(rules, "") + "COMMIT\n"
	if err := p.Run(ctx, document, program+"-restore", "-w", "--noflush"); err != nil {
		return fmt.Errorf("write the rules for published ports: %w", err)
	}
	for _, jump := range jumps(program) {
		there := p.Run(ctx, "", program, slices.Concat([]string{"-w", "-t", "nat", "-C"}, jump)...) == nil
		var err error
		switch {
		case len(rules) > 0 && !there:
			err = p.Run(ctx, "", program, slices.Concat([]string{"-w", "-t", "nat", "-A"}, jump)...)
		case len(rules) == 0 && there:
			err = p.Run(ctx, "", program, slices.Concat([]string{"-w", "-t", "nat", "-D"}, jump)...)
		}
		if err != nil {
			return fmt.Errorf("lead packets to the published ports: %w", err)
		}
	}
	if len(rules) > 0 {
		return nil
	}
	for _, chain := range []string{destinationChain, sourceChain} {
		if err := p.Run(ctx, "", program, "-w", "-t", "nat", "-X", chain); err != nil {
			return fmt.Errorf("remove the chain for published ports: %w", err)
		}
	}
	return nil
}

func jumps(program string) [][]string {
	toHost := []string{"-m", "addrtype", "--dst-type", "LOCAL", "-j", destinationChain}
	output := slices.Concat([]string{"OUTPUT"}, toHost)
	if program == "ip6tables" {
		// The kernel cannot route from ::1 to elsewhere, as it can from 127.0.0.1.
		output = slices.Concat([]string{"OUTPUT", "!", "-d", "::1/128"}, toHost)
	}
	return [][]string{
		slices.Concat([]string{"PREROUTING"}, toHost),
		output,
		{"POSTROUTING", "-j", sourceChain},
	}
}

// rules renders the record for one family, in an order that depends on nothing else.
func rules(published map[string][]store.Port, v4 bool) []string {
	var all []string
	for _, ports := range published {
		for _, port := range ports {
			container := port.Container
			if container.Is4() != v4 {
				continue
			}
			host := ""
			if port.HostAddress.IsValid() {
				host = " -d " + port.HostAddress.String()
			}
			number := strconv.Itoa(int(port.ContainerPort))
			all = append(all, fmt.Sprintf("-A %s -p %s%s -m %s --dport %d -j DNAT --to-destination %s\n",
				destinationChain, port.Protocol, host, port.Protocol, port.HostPort,
				netip.AddrPortFrom(container, port.ContainerPort)))
			for _, source := range returning(container) {
				all = append(all, fmt.Sprintf("-A %s -s %s -d %s -p %s -m %s --dport %s -j MASQUERADE\n",
					sourceChain, source, container, port.Protocol, port.Protocol, number))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// returning are the sources that could not be answered directly: the host's loopback, and the container itself.
func returning(container netip.Addr) []string {
	sources := []string{container.String()}
	if container.Is4() {
		sources = append(sources, "127.0.0.0/8")
	}
	return sources
}
