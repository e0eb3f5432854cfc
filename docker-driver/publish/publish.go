// Package publish publishes containers' ports on this host by DNAT in chains of its own. All rules are written together from
// the store. The chains are removed with the last published port.
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

// The driver's chains in the nat table. destinationChain translates an address of this host to the container's.
// sourceChain replaces the source of packets from loopback or from the container itself, so that replies pass this host.
const (
	destinationChain = "DOCKER-CALICO"
	sourceChain      = "DOCKER-CALICO-POST"
)

// commandTimeout limits one run of iptables, including the wait for its lock.
const commandTimeout = 20 * time.Second

// protocols are the protocols that can be published, by IP protocol number.
var protocols = map[uint8]string{6: "tcp", 17: "udp", 132: "sctp"}

// Runner runs a program with the given standard input.
type Runner func(ctx context.Context, input string, program string, arguments ...string) error

// Run runs a program on this host. The error contains its output.
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
	// HasInterface reports whether the host has the interface.
	HasInterface func(name string) bool
	// Reserve reserves the host's port until the result is closed.
	Reserve func(protocol string, at netip.AddrPort) (io.Closer, error)
	mutex   sync.Mutex
	sockets map[string][]io.Closer
	// dirty means that the kernel's rules may differ from the store.
	dirty bool
}

// Publish publishes the ports and translates them to the endpoint's addresses.
func (p *Ports) Publish(endpointID string, addresses []netip.Addr, bindings []plugin.PortBinding) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if err := p.removeDetached(endpointID); err != nil {
		return err
	}
	p.releasePorts(endpointID)
	others := p.portsOfOthers(endpointID)
	var ports []store.Port
	for _, binding := range bindings {
		found, sockets, err := p.choosePorts(binding, addresses, slices.Concat(others, ports))
		if err != nil {
			p.releasePorts(endpointID)
			return err
		}
		ports = append(ports, found...)
		p.addSockets(endpointID, sockets...)
	}
	if err := p.Store.SetPublished(endpointID, ports); err != nil {
		p.releasePorts(endpointID)
		return err
	}
	if err := p.apply(); err != nil {
		p.releasePorts(endpointID)
		return errors.Join(err, p.Store.SetPublished(endpointID, nil), p.apply())
	}
	return nil
}

// Unpublish removes the endpoint's published ports. An endpoint without ports is no error.
func (p *Ports) Unpublish(endpointID string) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.releasePorts(endpointID)
	if _, published := p.Store.Published()[endpointID]; !published && !p.dirty {
		return nil
	}
	if err := p.Store.SetPublished(endpointID, nil); err != nil {
		return err
	}
	return p.apply()
}

// Restore reserves the stored ports and writes their rules, which a reboot removes. It removes rules that are not in the
// store.
func (p *Ports) Restore() error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if err := p.removeDetached(""); err != nil {
		return err
	}
	var failed error
	for endpointID, ports := range p.Store.Published() {
		for _, port := range ports {
			sockets, err := p.Reserve(port.Protocol, port.At())
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("reserve published port %s: %w", port.At(), err))
				continue
			}
			p.addSockets(endpointID, sockets)
		}
	}
	return errors.Join(failed, p.applyLoopbackRule(), p.apply())
}

// Reapply writes all rules again, because another program may have flushed them.
func (p *Ports) Reapply() error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return errors.Join(p.applyLoopbackRule(), p.apply())
}

// Published returns the IDs of the endpoints with stored ports.
func (p *Ports) Published() []string { return slices.Collect(maps.Keys(p.Store.Published())) }

func (p *Ports) addSockets(endpointID string, sockets ...io.Closer) {
	if p.sockets == nil {
		p.sockets = map[string][]io.Closer{}
	}
	p.sockets[endpointID] = append(p.sockets[endpointID], sockets...)
}

// releasePorts closes the sockets that reserve the endpoint's ports.
func (p *Ports) releasePorts(endpointID string) {
	closeAll(p.sockets[endpointID])
	delete(p.sockets, endpointID)
}

func closeAll(sockets []io.Closer) {
	for _, each := range sockets {
		// Nothing is written to these sockets, so a failing close loses no data.
		_ = each.Close()
	}
}

// removeDetached deletes the stored ports of endpoints without an interface, as after a reboot.
func (p *Ports) removeDetached(except string) error {
	for endpointID := range p.Store.Published() {
		if endpointID != except && !p.HasInterface(workload.HostInterface(endpointID)) {
			p.releasePorts(endpointID)
			if err := p.Store.SetPublished(endpointID, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// portsOfOthers returns the ports of all other endpoints.
func (p *Ports) portsOfOthers(id string) []store.Port {
	var all []store.Port
	for endpointID, ports := range p.Store.Published() {
		if endpointID != id {
			all = append(all, ports...)
		}
	}
	return all
}

// choosePorts chooses and reserves the host's ports for one binding: one per address family, all with the same number.
func (p *Ports) choosePorts(
	b plugin.PortBinding, to []netip.Addr, others []store.Port,
) ([]store.Port, []io.Closer, error) {
	protocol, known := protocols[b.Proto]
	if !known {
		return nil, nil, fmt.Errorf("publish port %d: protocol number %d cannot be published", b.Port, b.Proto)
	}
	if b.HostPort == 0 {
		return nil, nil, fmt.Errorf("publish %d/%s: on a Calico network specify the host's port, as in -p 8080:%d, "+
			"because Docker cannot show a port that the driver chooses", b.Port, protocol, b.Port)
	}
	var host netip.Addr
	if b.HostIP != "" {
		parsed, err := netip.ParseAddr(b.HostIP)
		if err != nil {
			return nil, nil, fmt.Errorf("publish %d/%s on %q: %w", b.Port, protocol, b.HostIP, err)
		}
		host = parsed.Unmap()
	}
	var failed error
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
		var sockets []io.Closer
		if sockets, failed = p.reservePorts(ports, others); failed == nil {
			return ports, sockets, nil
		}
	}
	return nil, nil, failed
}

// errOtherContainer is returned for a port of another container that no socket reserves, such as an SCTP port.
var errOtherContainer = fmt.Errorf("%w by another container of a Calico network", syscall.EADDRINUSE)

// reservePorts reserves all of the ports or none.
func (p *Ports) reservePorts(ports, others []store.Port) ([]io.Closer, error) {
	var sockets []io.Closer
	for _, port := range ports {
		one, err := p.reservePort(port, others)
		if err == nil {
			sockets = append(sockets, one)
			continue
		}
		closeAll(sockets)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("publish %d/%s on %s of this host: %w", port.ContainerPort, port.Protocol, port.At(), err)
		}
		return nil, fmt.Errorf("publish %d/%s on port %d of this host: the port is taken (%w); find its user with "+
			"docker ps and ss -lntup", port.ContainerPort, port.Protocol, port.HostPort, err)
	}
	return sockets, nil
}

func (p *Ports) reservePort(port store.Port, others []store.Port) (io.Closer, error) {
	if slices.ContainsFunc(others, port.Collides) {
		return nil, errOtherContainer
	}
	return p.Reserve(port.Protocol, port.At())
}

// Reserve reserves a port of this host by listening on it; ss shows the socket. It gets no packets where DNAT applies. An
// SCTP port is not reserved, because Go's library does not have SCTP.
func Reserve(protocol string, at netip.AddrPort) (io.Closer, error) {
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
		if err := refuseConnections(listener.(*net.TCPListener)); err != nil {
			return nil, errors.Join(err, listener.Close())
		}
		return listener, nil
	case "udp":
		return net.ListenPacket(protocol+family, at.String())
	default:
		return io.NopCloser(nil), nil
	}
}

// refuseConnections makes the socket refuse connections and keep its port. There is no DNAT from ::1, and a client that
// tries ::1 first must get a failed to try 127.0.0.1 next. The socket must have listened before: a socket that is only
// bound either shares its port or cannot bind a port with connections in TIME_WAIT.
func refuseConnections(listener *net.TCPListener) error {
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

// apply writes the rules of all stored ports, in one transaction for each address family.
func (p *Ports) apply() error {
	published := p.Store.Published()
	err := errors.Join(p.applyFamily("iptables", rules(published, true)),
		p.applyFamily("ip6tables", rules(published, false)))
	p.dirty = err != nil
	return err
}

func (p *Ports) applyFamily(program string, rules []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	if len(rules) == 0 && p.Run(ctx, "", program, "-w", "-t", "nat", "-n", "-L", destinationChain) != nil {
		// There is nothing to publish and no chain to remove, or the kernel does not support the family.
		return nil
	}
	document := "*nat\n:" + destinationChain + " - [0:0]\n:" + sourceChain + " - [0:0]\n" +
		strings.Join(rules, "") + "COMMIT\n"
	if err := p.Run(ctx, document, program+"-restore", "-w", "--noflush"); err != nil {
		return fmt.Errorf("write the rules for published ports: %w", err)
	}
	for _, jump := range jumps(program) {
		exists := p.Run(ctx, "", program, slices.Concat([]string{"-w", "-t", "nat", "-C"}, jump)...) == nil
		var err error
		switch {
		case len(rules) > 0 && !exists:
			err = p.Run(ctx, "", program, slices.Concat([]string{"-w", "-t", "nat", "-A"}, jump)...)
		case len(rules) == 0 && exists:
			err = p.Run(ctx, "", program, slices.Concat([]string{"-w", "-t", "nat", "-D"}, jump)...)
		}
		if err != nil {
			return fmt.Errorf("change the jump to the chain for published ports: %w", err)
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

// jumps are the rules in the built-in chains that jump to the driver's chains.
func jumps(program string) [][]string {
	toHost := []string{"-m", "addrtype", "--dst-type", "LOCAL", "-j", destinationChain}
	output := slices.Concat([]string{"OUTPUT"}, toHost)
	if program == "ip6tables" {
		// The kernel does not forward packets from ::1, unlike those from 127.0.0.1.
		output = slices.Concat([]string{"OUTPUT", "!", "-d", "::1/128"}, toHost)
	}
	return [][]string{
		slices.Concat([]string{"PREROUTING"}, toHost),
		output,
		{"POSTROUTING", "-j", sourceChain},
	}
}

// rules renders the rules of one address family in a fixed order.
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
			for _, source := range masqueradeSources(container) {
				all = append(all, fmt.Sprintf("-A %s -s %s -d %s -p %s -m %s --dport %s -j MASQUERADE\n",
					sourceChain, source, container, port.Protocol, port.Protocol, number))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// masqueradeSources are the sources to which the container cannot reply directly: loopback and the container itself.
func masqueradeSources(container netip.Addr) []string {
	sources := []string{container.String()}
	if container.Is4() {
		sources = append(sources, "127.0.0.0/8")
	}
	return sources
}
