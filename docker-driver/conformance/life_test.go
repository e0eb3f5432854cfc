//go:build engine

package conformance

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	calico "github.com/projectcalico/calico/libcalico-go/lib/ipam"
	cnet "github.com/projectcalico/calico/libcalico-go/lib/net"

	"calico-lab/docker-driver/ipam"
	"calico-lab/docker-driver/link"
	"calico-lab/docker-driver/workload"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// connection is a TCP connection between two containers. The server sends every line back.
type connection struct {
	in  interface{ Write([]byte) (int, error) }
	out *bufio.Scanner
}

func connect(t *testing.T, from, to string) connection {
	t.Helper()
	docker(t, "exec", "-d", to, "nc", "-l", "-p", "7", "-e", "sh", "-c", "while read line; do echo $line; done")
	var c connection
	must(t, until(func() error {
		command := exec.Command("nsenter", "-t", docker(t, "inspect", "-f", "{{.State.Pid}}", from), "-n",
			"busybox", "nc", address(t, to, "netv").String(), "7")
		in, err := command.StdinPipe()
		if err != nil {
			return err
		}
		out, err := command.StdoutPipe()
		if err != nil {
			return err
		}
		if err := command.Start(); err != nil {
			return err
		}
		c = connection{in: in, out: bufio.NewScanner(out)}
		return c.echo("hello")
	}))
	return c
}

func (c connection) echo(line string) error {
	if _, err := fmt.Fprintln(c.in, line); err != nil {
		return err
	}
	if !c.out.Scan() || c.out.Text() != line {
		return fmt.Errorf("sent %q, got %q", line, c.out.Text())
	}
	return nil
}

func TestDriverKilled(t *testing.T) {
	netv(t)
	container(t, "c1", "--network", "netv")
	container(t, "c2", "--network", "netv", "-p", "8080:80")
	tcp := connect(t, "c1", "c2")
	must(t, lab.driver.end(syscall.SIGKILL))
	must(t, tcp.echo("without a driver"))
	ping(t, "c1", address(t, "c2", "netv").String())
	finished := make(chan error, 1)
	go func() {
		_, err := lab.run("run", "-d", "--name", "c3", "--stop-signal", "KILL", "--network", "netv", "box", "sleep", "100000")
		finished <- err
	}()
	docker(t, "ps")
	must(t, lab.driver.start())
	if err := <-finished; err != nil {
		t.Errorf("a container that was started in between: %v", err)
	}
	must(t, tcp.echo("with a new driver"))
	refused(t, "address already in use", "run", "--rm", "-p", "8080:80", "box", "true")
	docker(t, "rm", "-f", "c2")
	if remaining, err := rules(); err != nil || remaining != "" {
		t.Errorf("remaining rules: %v\n%s", err, remaining)
	}
	consistent(t)
}

// TestDriverKilledDuringCall kills the driver while it waits for etcd. Docker repeats the call without its content.
func TestDriverKilledDuringCall(t *testing.T) {
	netv(t)
	for _, each := range []struct {
		call      string
		arguments []string
	}{
		{"IpamDriver.RequestAddress", []string{
			"run", "-d", "--name", "c1", "--network", "netv", "--ip", "192.168.0.101", "box", "sleep", "100000"}},
		{"NetworkDriver.DeleteEndpoint", []string{"rm", "-f", "c1"}},
	} {
		must(t, lab.etcd.signal(syscall.SIGSTOP))
		finished := make(chan error, 1)
		go func() {
			_, err := lab.run(each.arguments...)
			finished <- err
		}()
		err := until(func() error {
			if lab.inProgress(each.call) == 0 {
				return fmt.Errorf("no %s is in progress", each.call)
			}
			return nil
		})
		must(t, errors.Join(err, lab.driver.end(syscall.SIGKILL), lab.driver.start(), lab.etcd.signal(syscall.SIGCONT)))
		must(t, <-finished)
		if count := lab.inProgress(each.call); count != 0 {
			t.Errorf("%d calls of %s are in progress", count, each.call)
		}
		if each.call == "IpamDriver.RequestAddress" {
			ping(t, "c1", "10.99.0.1")
		}
		consistent(t)
	}
}

func TestEngineKilled(t *testing.T) {
	netv(t)
	createNetwork(t, "small", "--subnet", "10.50.0.0/28")
	container(t, "always", "--network", "netv", "--ip", "192.168.0.101", "--restart", "always", "-p", "8080:80")
	docker(t, "network", "connect", "--ip", "10.50.0.9", "small", "always")
	container(t, "once", "--network", "netv", "--ip", "192.168.0.102")
	for range 2 {
		must(t, lab.docker.end(syscall.SIGKILL))
		must(t, lab.startDocker(false))
		must(t, until(func() error {
			_, err := lab.run("exec", "always", "ping", "-c", "1", "-W", "1", "10.99.0.1")
			return err
		}))
		if got := address(t, "always", "netv").String(); got != "192.168.0.101" {
			t.Errorf("restarted with %s", got)
		}
		if got := address(t, "always", "small").String(); got != "10.50.0.9" {
			t.Errorf("restarted with %s", got)
		}
		consistent(t)
		docker(t, "start", "once")
		ping(t, "once", "192.168.0.101")
	}
}

func TestEngineRestart(t *testing.T) {
	netv(t)
	container(t, "always", "--network", "netv", "--ip", "192.168.0.101", "--restart", "always")
	must(t, lab.docker.end(syscall.SIGTERM))
	must(t, lab.startDocker(false))
	must(t, until(func() error {
		_, err := lab.run("exec", "always", "ping", "-c", "1", "-W", "1", "10.99.0.1")
		return err
	}))
	consistent(t)
}

func TestEngineRestartWithLiveRestore(t *testing.T) {
	must(t, lab.docker.end(syscall.SIGTERM))
	must(t, lab.startDocker(true))
	t.Cleanup(func() {
		must(t, lab.docker.end(syscall.SIGTERM))
		must(t, lab.startDocker(false))
	})
	netv(t)
	container(t, "c1", "--network", "netv")
	container(t, "c2", "--network", "netv", "--ip", "192.168.0.100")
	tcp := connect(t, "c1", "c2")
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		must(t, lab.docker.end(signal))
		must(t, tcp.echo("without an engine"))
		must(t, lab.driver.end(syscall.SIGTERM))
		must(t, lab.driver.start())
		must(t, tcp.echo("with a new driver"))
		must(t, lab.startDocker(true))
		// Longer than a reconciliation, which must not change the containers.
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
			must(t, tcp.echo("with a new engine"))
		}
		consistent(t)
	}
	refused(t, "taken by container c2", "run", "--rm", "--network", "netv", "--ip", "192.168.0.100", "box", "true")
}

// TestReboot simulates a power failure: files remain, and the kernel's state is lost.
func TestReboot(t *testing.T) {
	netv(t)
	container(t, "always", "--network", "netv", "--ip", "192.168.0.101", "--restart", "always", "-p", "8080:80")
	container(t, "auto", "--network", "netv", "--restart", "always")
	container(t, "once", "--network", "netv", "--ip", "192.168.0.102")
	pids := strings.Fields(docker(t, "inspect", "-f", "{{.State.Pid}}", "always", "auto", "once"))
	must(t, lab.docker.end(syscall.SIGKILL))
	must(t, lab.driver.end(syscall.SIGKILL))
	must(t, exec.Command("kill", append([]string{"-9"}, pids...)...).Run())
	must(t, until(func() error {
		owned, err := link.Host{}.List()
		if err != nil {
			return err
		}
		for _, name := range owned {
			if err := (link.Host{}).Remove(name); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, exec.Command("iptables", "-t", "nat", "-F").Run())
	must(t, lab.driver.start())
	must(t, lab.startDocker(false))
	must(t, until(func() error {
		_, err := lab.run("exec", "auto", "ping", "-c", "1", "-W", "1", "192.168.0.101")
		return err
	}))
	consistent(t)
	docker(t, "start", "once")
	docker(t, "rm", "-f", "always")
	if remaining, err := rules(); err != nil || remaining != "" {
		t.Errorf("remaining rules: %v\n%s", err, remaining)
	}
	consistent(t)
}

func TestEtcdUnavailable(t *testing.T) {
	netv(t)
	container(t, "c1", "--network", "netv")
	container(t, "c2", "--network", "netv", "--ip", "192.168.0.100")
	container(t, "gone", "--network", "netv")
	tcp := connect(t, "c1", "c2")
	must(t, lab.etcd.signal(syscall.SIGSTOP))
	resumed := false
	t.Cleanup(func() {
		if !resumed {
			must(t, lab.etcd.signal(syscall.SIGCONT))
		}
	})
	docker(t, "rm", "-f", "gone")
	must(t, tcp.echo("without etcd"))
	finished := make(chan error, 1)
	go func() {
		_, err := lab.run("run", "-d", "--name", "c3", "--stop-signal", "KILL", "--network", "netv", "box", "sleep", "100000")
		finished <- err
	}()
	// Longer than one attempt of the driver.
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Second) {
		must(t, tcp.echo("without etcd"))
	}
	must(t, lab.etcd.signal(syscall.SIGCONT))
	resumed = true
	if err := <-finished; err != nil {
		t.Errorf("a container that was started in between: %v", err)
	}
	consistent(t)
}

func TestReconcileAfterRestart(t *testing.T) {
	netv(t)
	container(t, "c1", "--network", "netv", "-l", "org.projectcalico.label.role=web")
	id := docker(t, "inspect", "-f", "{{.NetworkSettings.Networks.netv.EndpointID}}", "c1")
	leaked := netip.MustParseAddr("192.168.0.200")
	handle := ipam.NewHandle()
	must(t, lab.client.IPAM().AssignIP(t.Context(), calico.AssignIPArgs{
		IP: cnet.MustParseIP(leaked.String()), HandleID: &handle, Hostname: node, Attrs: ipam.Attributes(node),
	}))
	must(t, lab.endpoints.Put(t.Context(), lab.endpoints.New("0123456789abcdef", "02:42:c0:a8:00:c8",
		[]netip.Addr{leaked}, []string{"netv"})))
	stale := link.Pair{EndpointID: "fedcba9876543210", Host: "califedcba98765", Peer: "tempfedcba98765"}
	must(t, link.Host{}.Create(stale))
	must(t, lab.endpoints.Delete(t.Context(), id))
	must(t, lab.driver.end(syscall.SIGTERM))
	must(t, lab.driver.start())
	consistent(t)
	endpoint, err := lab.endpoints.Get(t.Context(), id)
	must(t, err)
	if got := workload.Addresses(endpoint); len(got) != 1 || got[0] != address(t, "c1", "netv") {
		t.Errorf("the endpoint was recreated with %v", got)
	}
	must(t, until(func() error {
		endpoint, err := lab.endpoints.Get(t.Context(), id)
		if err == nil && endpoint.Labels["role"] != "web" {
			return fmt.Errorf("the endpoint was recreated without its labels: %v", endpoint.Labels)
		}
		return err
	}))
	docker(t, "run", "--rm", "--network", "netv", "--ip", leaked.String(), "box", "true")
}

// TestReconcileFlushedRules flushes the driver's rules. A failed call requests a reconciliation.
func TestReconcileFlushedRules(t *testing.T) {
	netv(t)
	container(t, "web", "--network", "netv", "-p", "8080:80")
	before, err := rules()
	must(t, err)
	for _, command := range []string{"-t nat -F DOCKER-CALICO", "-t nat -F DOCKER-CALICO-POST", "-t raw -F PREROUTING"} {
		must(t, exec.Command("iptables", strings.Fields("-w "+command)...).Run())
	}
	refused(t, "leave --gateway out", "network", "create", "-d", "calico", "--ipam-driver", "calico-ipam", "--subnet",
		"192.168.0.0/16", "--gateway", "192.168.0.1", "n")
	must(t, until(func() error {
		after, err := rules()
		if err == nil && after != before {
			err = fmt.Errorf("the rules are\n%s\nnot\n%s", after, before)
		}
		return err
	}))
	raw, err := exec.Command("iptables-save", "-t", "raw").Output()
	if err != nil || !strings.Contains(string(raw), "calico-docker-driver") {
		t.Errorf("the raw table is %v\n%s", err, raw)
	}
}

// TestChurn starts and removes containers at random while the driver and etcd are killed.
func TestChurn(t *testing.T) {
	const workers, rounds = 4, 12
	netv(t)
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for round := range rounds {
				name := fmt.Sprintf("churn-%d-%d", worker, round)
				_, err := lab.run("run", "-d", "--name", name, "--stop-signal", "KILL", "--network", "netv", "box",
					"sleep", "100000")
				if err != nil && !strings.Contains(err.Error(), "Docker repeated it without its content") {
					t.Error(err)
				}
				if rand.IntN(3) > 0 {
					if _, err := lab.run("rm", "-f", name); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	for killed := false; ; killed = !killed {
		select {
		case <-done:
			consistent(t)
			return
		case <-time.After(time.Duration(1+rand.IntN(3)) * time.Second):
		}
		program := map[bool]*process{false: lab.driver, true: lab.etcd}[killed]
		must(t, program.end(syscall.SIGKILL))
		must(t, program.start())
	}
}
