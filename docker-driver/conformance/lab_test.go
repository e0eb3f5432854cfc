//go:build engine

// Package conformance tests the driver with a real engine and a real etcd by docker commands. Everything runs in
// network, PID and mount namespaces of its own, so it does not change this machine's engine or network. It needs root,
// etcd, dockerd with containerd and runc, docker, iptables and a static busybox.
//
//	go test -tags engine ./conformance
//
// DOCKERD, DOCKER, ETCD and BUSYBOX specify other programs than those on PATH.
package conformance

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/projectcalico/calico/libcalico-go/lib/apiconfig"
	libapi "github.com/projectcalico/calico/libcalico-go/lib/apis/v3"
	"github.com/projectcalico/calico/libcalico-go/lib/clientv3"
	"github.com/projectcalico/calico/libcalico-go/lib/options"
	"github.com/sirupsen/logrus"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/ipam"
	"calico-lab/docker-driver/link"
	"calico-lab/docker-driver/workload"
)

// folderVariable is the environment variable of the test program inside the namespaces, with the folder for all files.
const folderVariable = "CALICO_CONFORMANCE_FOLDER"

const (
	node    = "a0"
	etcdURL = "http://127.0.0.1:2379"
	version = "v0-conformance"
)

// waitTimeout limits a wait for a condition.
const waitTimeout = 45 * time.Second

// startTimeout is the driver's --start-timeout.
const startTimeout = 30 * time.Second

// reconcileTimeout limits the wait until reconciliation has removed a container that did not start. Its address is
// claimed for startTimeout and the 30 s in which an engine repeats a call.
const reconcileTimeout = startTimeout + 30*time.Second + waitTimeout

func TestMain(m *testing.M) {
	folder := os.Getenv(folderVariable)
	var code int
	var err error
	if folder == "" {
		code, err = runInNamespaces()
	} else {
		code, err = runTests(m, folder)
	}
	if err != nil {
		log.Print(err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// runInNamespaces builds the driver and runs this test program again in namespaces of its own.
func runInNamespaces() (int, error) {
	folder, err := os.MkdirTemp("", "calico-conformance-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(folder)
	binary := filepath.Join(folder, "calico-docker-driver")
	build := exec.Command("go", "build", "-ldflags", "-X main.version="+version, "-o", binary,
		"../cmd/calico-docker-driver")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build the driver: %w: %s", err, output)
	}
	program, err := os.Executable()
	if err != nil {
		return 1, err
	}
	// The shell is process 1 of the PID namespace and reaps orphans. Otherwise an engine takes a containerd zombie for
	// a running containerd. All processes end with it.
	again := exec.Command("sh", slices.Concat([]string{"-c", `"$@" & wait $!`, "sh", program}, os.Args[1:])...)
	again.Env = append(os.Environ(), folderVariable+"="+folder)
	again.Stdout, again.Stderr = os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = again.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// runTests prepares the namespaces, starts the programs and runs the tests.
func runTests(m *testing.M, folder string) (int, error) {
	logrus.SetOutput(io.Discard)
	mounts := []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"", "/", "", syscall.MS_REC | syscall.MS_PRIVATE},
		{"proc", "/proc", "proc", 0},
		{"tmpfs", "/run", "tmpfs", 0},
	}
	for _, each := range mounts {
		if err := syscall.Mount(each.source, each.target, each.kind, each.flags, ""); err != nil {
			return 1, fmt.Errorf("mount %s: %w", each.target, err)
		}
	}
	// The kernel answers ARP for 169.254.1.1 only with a route to it, so there is a default route, to an unused address.
	for _, line := range []string{
		"ip link set lo up", "ip link add uplink type bridge", "ip address add 10.99.0.1/24 dev uplink",
		"ip address add fd00:99::1/64 dev uplink nodad", "ip link set uplink up", "ip route add default via 10.99.0.2",
		"sysctl -qw net.ipv6.conf.all.forwarding=1",
	} {
		words := strings.Fields(line)
		if output, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return 1, fmt.Errorf("%s: %w: %s", line, err, output)
		}
	}
	var err error
	if lab, err = start(folder); err != nil {
		return 1, err
	}
	code := m.Run()
	if code != 0 {
		lab.showLogs()
	}
	return code, lab.stop()
}

// lab is the host that all tests use in sequence.
var lab *host

type host struct {
	folder               string
	client               clientv3.Interface
	blocks               datastore.Blocks
	etcd, driver, docker *process
	endpoints            workload.Endpoints
}

// process is a program that tests kill and restart. Its output is appended to a file.
type process struct {
	name    string
	command func() *exec.Cmd
	running *exec.Cmd
	output  string
}

func (p *process) start() error {
	p.running = p.command()
	file, err := os.OpenFile(p.output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	p.running.Stdout, p.running.Stderr = file, file
	if err := p.running.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	return nil
}

func (p *process) signal(signal syscall.Signal) error { return p.running.Process.Signal(signal) }

// end sends the signal and waits until the process ends. The exit status is ignored, because it depends on the signal.
func (p *process) end(signal syscall.Signal) error {
	if err := p.signal(signal); err != nil {
		return err
	}
	_ = p.running.Wait()
	return nil
}

func start(folder string) (*host, error) {
	h := &host{folder: folder}
	h.etcd = &process{name: "etcd", output: filepath.Join(folder, "etcd.log"), command: func() *exec.Cmd {
		return exec.Command(cmp.Or(os.Getenv("ETCD"), "etcd"), "--data-dir", filepath.Join(folder, "etcd"),
			"--listen-client-urls", etcdURL, "--advertise-client-urls", etcdURL)
	}}
	h.driver = &process{name: "the driver", output: filepath.Join(folder, "driver.log"), command: func() *exec.Cmd {
		command := exec.Command(filepath.Join(folder, "calico-docker-driver"),
			"--state-dir", filepath.Join(folder, "state"), "--recheck-delay", "2s", "--start-timeout", startTimeout.String(),
			"--mtu-file", filepath.Join(folder, "mtu"))
		command.Env = append(os.Environ(), "DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS="+etcdURL, "NODENAME="+node)
		return command
	}}
	h.docker = &process{name: "dockerd", output: filepath.Join(folder, "dockerd.log"), command: func() *exec.Cmd {
		return exec.Command(cmp.Or(os.Getenv("DOCKERD"), "dockerd"), "--data-root", filepath.Join(folder, "docker"),
			"--config-file", filepath.Join(folder, "daemon.json"), "--shutdown-timeout", "2")
	}}
	for _, program := range []*process{h.etcd, h.driver} {
		if err := program.start(); err != nil {
			return nil, err
		}
	}
	if err := h.startDocker(false); err != nil {
		return nil, err
	}
	return h, errors.Join(h.createResources(), h.importImage())
}

// startDocker starts the engine and waits until it answers.
func (h *host) startDocker(liveRestore bool) error {
	settings := fmt.Sprintf(`{"live-restore": %t}`, liveRestore)
	if err := os.WriteFile(filepath.Join(h.folder, "daemon.json"), []byte(settings), 0o600); err != nil {
		return err
	}
	// A killed engine leaves the file, and the process ID may belong to another process now.
	if err := os.Remove("/var/run/docker.pid"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := h.docker.start(); err != nil {
		return err
	}
	return until(func() error {
		_, err := h.run("info")
		return err
	})
}

// createResources creates the nodes, pools and rules that Calico and the operator create.
func (h *host) createResources() error {
	config := apiconfig.NewCalicoAPIConfig()
	config.Spec.DatastoreType, config.Spec.EtcdEndpoints = apiconfig.EtcdV3, etcdURL
	var err error
	if h.client, err = clientv3.New(*config); err != nil {
		return err
	}
	if h.blocks, err = datastore.NewBlocks(h.client); err != nil {
		return err
	}
	h.endpoints = workload.Endpoints{Client: h.client.WorkloadEndpoints(), Node: node}
	ctx, cancel := context.WithTimeout(context.Background(), waitTimeout)
	defer cancel()
	for _, name := range []string{node, "a1"} {
		n := libapi.NewNode()
		n.Name = name
		if _, err := h.client.Nodes().Create(ctx, n, options.SetOptions{}); err != nil {
			return err
		}
	}
	for name, spec := range map[string]v3.IPPoolSpec{
		"netv":  {CIDR: "192.168.0.0/16", NATOutgoing: true},
		"small": {CIDR: "10.50.0.0/28", BlockSize: 29},
		"netv6": {CIDR: "fd00:50::/64"},
	} {
		pool := v3.NewIPPool()
		pool.Name, pool.Spec = name, spec
		if _, err := h.client.IPPools().Create(ctx, pool, options.SetOptions{}); err != nil {
			return err
		}
	}
	// Docker sets the policy of FORWARD to DROP. On a host with Felix, Felix accepts the containers' packets.
	for _, program := range []string{"iptables", "ip6tables"} {
		if output, err := exec.Command(program, "-P", "FORWARD", "ACCEPT").CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", program, err, output)
		}
	}
	return nil
}

func (h *host) importImage() error {
	busybox, err := exec.LookPath(cmp.Or(os.Getenv("BUSYBOX"), "busybox"))
	if err != nil {
		return err
	}
	root := filepath.Join(h.folder, "root", "bin")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	content, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "busybox"), content, 0o755); err != nil {
		return err
	}
	for _, applet := range []string{"sh", "sleep", "ip", "ping", "printf", "httpd", "nc", "mkdir", "true", "kill"} {
		if err := os.Symlink("busybox", filepath.Join(root, applet)); err != nil {
			return err
		}
	}
	pack := exec.Command("sh", "-c", `tar -C "$0" -c . | "$1" import - box`, filepath.Dir(root), cli())
	if output, err := pack.CombinedOutput(); err != nil {
		return fmt.Errorf("import the image: %w: %s", err, output)
	}
	return nil
}

// inProgress returns the number of requests of the call in the driver's journal.
func (h *host) inProgress(call string) int {
	files, err := filepath.Glob(filepath.Join(h.folder, "state", "requests", call+"-*"))
	if err != nil {
		panic(err)
	}
	return len(files)
}

func (h *host) stop() error {
	_ = h.docker.end(syscall.SIGTERM)
	return errors.Join(h.driver.end(syscall.SIGTERM), h.etcd.end(syscall.SIGTERM))
}

func (h *host) showLogs() {
	for _, p := range []*process{h.driver, h.docker} {
		content, err := os.ReadFile(p.output)
		if err != nil {
			log.Print(err)
			continue
		}
		lines := strings.Split(string(content), "\n")
		log.Printf("last lines of %s:\n%s", p.name, strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
}

func cli() string { return cmp.Or(os.Getenv("DOCKER"), "docker") }

// run runs docker with the arguments.
func (h *host) run(arguments ...string) (string, error) {
	output, message, err := attempt(arguments...)
	if err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", strings.Join(arguments, " "), err, message)
	}
	return output, nil
}

// attempt runs docker and returns its standard output and standard error.
func attempt(arguments ...string) (string, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, cli(), arguments...)
	var output, message bytes.Buffer
	command.Stdout, command.Stderr = &output, &message
	err := command.Run()
	return strings.TrimSpace(output.String()), strings.TrimSpace(message.String()), err
}

// docker runs docker and returns its output. It fails the test on an error.
func docker(t *testing.T, arguments ...string) string {
	t.Helper()
	output, err := lab.run(arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

// refused runs docker and checks that it fails with the message.
func refused(t *testing.T, want string, arguments ...string) {
	t.Helper()
	_, message, err := attempt(arguments...)
	if err == nil || !strings.Contains(message, want) {
		t.Errorf("docker %s: %v, %q, not: %s", strings.Join(arguments, " "), err, message, want)
	}
}

// createNetwork creates a network. After the test it removes all containers and the network.
func createNetwork(t *testing.T, name string, arguments ...string) {
	t.Helper()
	docker(t, slices.Concat([]string{"network", "create", "-d", "calico", "--ipam-driver", "calico-ipam"}, arguments,
		[]string{name})...)
	t.Cleanup(func() {
		if ids := docker(t, "ps", "-aq"); ids != "" {
			docker(t, slices.Concat([]string{"rm", "-f"}, strings.Fields(ids))...)
		}
		removeNetwork(t, name)
	})
}

// removeNetwork removes a network without containers. Engines of the 20.10 line count a network's endpoints, and the
// count can become wrong when several containers start and stop at once (https://github.com/moby/moby/issues/42119).
// Then the network "has active endpoints" until the next start of the engine.
func removeNetwork(t *testing.T, name string) {
	t.Helper()
	_, err := lab.run("network", "rm", name)
	if err == nil {
		return
	}
	if on := inspect(t, "{{len .Containers}}", name); on != "0" || !strings.Contains(err.Error(), "has active endpoints") {
		t.Fatalf("%v, with %s containers on it", err, on)
	}
	must(t, lab.docker.end(syscall.SIGTERM))
	must(t, lab.startDocker(false))
	docker(t, "network", "rm", name)
}

func netv(t *testing.T) {
	t.Helper()
	createNetwork(t, "netv", "--subnet", "192.168.0.0/16")
}

// container starts a container that runs until it is stopped, and stops at once.
func container(t *testing.T, name string, arguments ...string) {
	t.Helper()
	docker(t, slices.Concat([]string{"run", "-d", "--name", name, "--stop-signal", "KILL"}, arguments,
		[]string{"box", "sleep", "100000"})...)
}

func address(t *testing.T, name, network string) netip.Addr {
	t.Helper()
	text := docker(t, "inspect", "-f", `{{(index .NetworkSettings.Networks "`+network+`").IPAddress}}`, name)
	parsed, err := netip.ParseAddr(text)
	if err != nil {
		t.Fatalf("address of %s on %s: %v", name, network, err)
	}
	return parsed
}

func ping(t *testing.T, from string, to string) {
	t.Helper()
	docker(t, "exec", from, "ping", "-c", "1", "-W", "3", to)
}

// create creates a container by the engine's API, for options that a docker client of another version refuses.
func create(t *testing.T, name string, body map[string]any) {
	t.Helper()
	content, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	response, err := api.Post("http://docker/containers/create?name="+name, "application/json", bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(response.Body)
		t.Fatalf("create %s: %s", name, text)
	}
}

// checkConsistent compares Docker's endpoints, WorkloadEndpoints, allocations and interfaces. `calicoctl ipam check` is not
// used, because it needs Kubernetes.
func (h *host) checkConsistent() error {
	ctx, cancel := context.WithTimeout(context.Background(), waitTimeout)
	defer cancel()
	stored, err := h.endpoints.ListNode(ctx)
	if err != nil {
		return err
	}
	allocations, handles, err := h.blocks.Allocations(ctx, node, ipam.HandlePrefix)
	if err != nil {
		return err
	}
	owned, err := link.Host{}.List()
	if err != nil {
		return err
	}
	known, err := dockerEndpoints()
	if err != nil {
		return err
	}
	var found []error
	used := map[netip.Addr]string{}
	for _, endpoint := range stored {
		id := endpoint.Spec.Endpoint
		if !known[id] {
			found = append(found, fmt.Errorf("WorkloadEndpoint %s has no Docker endpoint", id))
		}
		if owned[id] != endpoint.Spec.InterfaceName {
			found = append(found, fmt.Errorf("endpoint %s has no interface %s", id, endpoint.Spec.InterfaceName))
		}
		for _, each := range workload.Addresses(&endpoint) {
			if used[each] != "" {
				found = append(found, fmt.Errorf("address %s belongs to endpoints %s and %s", each, used[each], id))
			}
			used[each] = id
		}
	}
	if len(known) != len(stored) || len(owned) != len(stored) {
		found = append(found, fmt.Errorf("%d Docker endpoints, %d WorkloadEndpoints, %d interfaces", len(known),
			len(stored), len(owned)))
	}
	for _, allocation := range allocations {
		if used[allocation.Address] == "" {
			found = append(found, fmt.Errorf("address %s is allocated and has no endpoint", allocation.Address))
		}
		delete(used, allocation.Address)
	}
	for id := range handles {
		found = append(found, fmt.Errorf("handle %s has no address", id))
	}
	for each, id := range used {
		found = append(found, fmt.Errorf("address %s of endpoint %s is not allocated", each, id))
	}
	return errors.Join(found...)
}

// consistent waits until there are no differences.
func consistent(t *testing.T) {
	t.Helper()
	if err := waitUntil(reconcileTimeout, lab.checkConsistent); err != nil {
		t.Error(err)
	}
}

// inspect returns the output of docker inspect with a Go template.
func inspect(t *testing.T, template, name string) string {
	t.Helper()
	return docker(t, "inspect", "-f", template, name)
}

// until calls check until it returns no error, for at most waitTimeout.
func until(check func() error) error { return waitUntil(waitTimeout, check) }

// waitUntil calls check until it returns no error, for at most the time-out.
func waitUntil(timeout time.Duration, check func() error) error {
	deadline := time.Now().Add(timeout)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}
