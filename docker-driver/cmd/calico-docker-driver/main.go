// Command calico-docker-driver is Calico's network and IPAM driver for Docker.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/projectcalico/calico/libcalico-go/lib/clientv3"
	"github.com/projectcalico/calico/libcalico-go/lib/options"
	"github.com/sirupsen/logrus"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/driver"
	"calico-lab/docker-driver/engine"
	"calico-lab/docker-driver/labels"
	"calico-lab/docker-driver/link"
	"calico-lab/docker-driver/observe"
	"calico-lab/docker-driver/plugin"
	"calico-lab/docker-driver/publish"
	"calico-lab/docker-driver/store"
	"calico-lab/docker-driver/trigger"
)

// version is set at build time.
var version = "unknown"

// cleanupTimeout limits calls that remove something. It is short, because reconciliation completes what they could not do.
const cleanupTimeout = 5 * time.Second

// ethernetMTU is the MTU if neither the network nor Felix specifies one.
const ethernetMTU = 1500

type settings struct {
	node         string
	socketDir    string
	stateDir     string
	listen       string
	docker       string
	mtuFile      string
	startTimeout time.Duration
	recheckDelay time.Duration
	interval     time.Duration
	debug        bool
	showVersion  bool
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		slog.Error("the driver stops", "error", err)
		os.Exit(1)
	}
}

func parseFlags(arguments []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("calico-docker-driver", flag.ContinueOnError)
	flags.StringVar(&s.node, "node", os.Getenv("NODENAME"), "this host's node name in Calico (NODENAME; else the hostname)")
	flags.StringVar(&s.socketDir, "socket-dir", "/run/docker/plugins", "folder for Docker's plugin sockets")
	flags.StringVar(&s.stateDir, "state-dir", "/var/lib/calico-lab/docker-driver",
		"folder for the stored networks and for the requests of calls in progress")
	flags.StringVar(&s.listen, "listen", "127.0.0.1:9101", "address of /readiness and /metrics; empty for none")
	flags.StringVar(&s.docker, "docker-socket", "/var/run/docker.sock", "socket of Docker's API")
	flags.StringVar(&s.mtuFile, "mtu-file", "/var/lib/calico/mtu", "file in which Felix writes the containers' MTU")
	flags.DurationVar(&s.startTimeout, "start-timeout", 75*time.Second, "how long the start of a container waits for etcd")
	flags.DurationVar(&s.recheckDelay, "recheck-delay", 10*time.Second,
		"time between the two comparisons of a reconciliation")
	flags.DurationVar(&s.interval, "reconcile-interval", 5*time.Minute, "time between reconciliations")
	flags.BoolVar(&s.debug, "debug", false, "log requests and responses in full")
	flags.BoolVar(&s.showVersion, "version", false, "print the version and exit")
	if err := flags.Parse(arguments); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if s.node == "" {
		name, err := os.Hostname()
		if err != nil {
			return s, fmt.Errorf("get this host's name: %w", err)
		}
		s.node = strings.ToLower(name)
	}
	return s, nil
}

func run(arguments []string) error {
	s, err := parseFlags(arguments)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.showVersion {
		fmt.Println(version)
		return nil
	}
	log := newLogger(s.debug)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	a, err := assemble(s, log)
	if err != nil {
		return err
	}
	if err := a.driver.Ports.Restore(); err != nil {
		log.Error("published ports not fully restored", "error", err)
	}
	servers, err := a.listen(s)
	if err != nil {
		return err
	}
	log.Info("the driver is ready", "version", version, "node", s.node, "sockets", s.socketDir, "etcd", a.etcd)
	return a.serve(ctx, servers)
}

// newLogger makes the default logger. Calico's library logs each step with logrus. This output is discarded, because the
// driver logs the library's errors itself.
func newLogger(debug bool) *slog.Logger {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log)
	logrus.SetOutput(io.Discard)
	return log
}

// application is the driver with the parts that run beside its calls.
type application struct {
	driver   *driver.Driver
	follower *labels.Follower
	journal  *plugin.Journal
	status   *observe.Status
	// etcd are the etcd members, for the log.
	etcd string
}

// assemble makes the application for this host. It does not wait for etcd or Docker.
func assemble(s settings, log *slog.Logger) (application, error) {
	var none application
	client, retry, err := datastore.Connect()
	if err != nil {
		return none, err
	}
	blocks, err := datastore.NewBlocks(client)
	if err != nil {
		return none, err
	}
	records, err := store.Open(s.stateDir)
	if err != nil {
		return none, err
	}
	journal, err := plugin.OpenJournal(filepath.Join(s.stateDir, "requests"))
	if err != nil {
		return none, err
	}
	host, docker, relabel := link.Host{}, engine.New(s.docker), trigger.New()
	status := &observe.Status{Version: version, Datastore: checkNode(client, s.node)}
	ports := &publish.Ports{Store: records, Run: publish.Run, HasInterface: host.Exists, Reserve: publish.Reserve}
	d := driver.New(
		driver.Settings{
			Node: s.node, StartTimeout: s.startTimeout, CleanupTimeout: cleanupTimeout, RecheckDelay: s.recheckDelay,
			Interval: s.interval, DefaultMTU: readMTU(s.mtuFile), Relabel: relabel,
		},
		driver.Datastore{
			Pools: client.IPPools(), Profiles: client.Profiles(), Endpoints: client.WorkloadEndpoints(),
			Addresses: client.IPAM(), Allocations: blocks, Retry: retry,
		},
		docker, host, records, ports, status, log,
	)
	follower := &labels.Follower{
		Engine: docker, Endpoints: d.Endpoints, Retry: retry.WithTimeout(s.startTimeout), All: relabel,
		Subscribed: d.Reconciler.Requested.Request, RetryDelay: time.Minute, Log: log,
	}
	return application{driver: d, follower: follower, journal: journal, status: status, etcd: retry.Endpoints}, nil
}

// listen opens the plugin sockets and the address of /readiness and /metrics, and serves them.
func (a application) listen(s settings) (*servers, error) {
	servers := newServers()
	for name, handler := range a.driver.Handlers(a.journal) {
		listener, err := plugin.Listen(s.socketDir, name)
		if err != nil {
			return nil, err
		}
		servers.serve(listener, handler)
	}
	if s.listen == "" {
		return servers, nil
	}
	listener, err := net.Listen("tcp", s.listen)
	if err != nil {
		return nil, fmt.Errorf("listen for /readiness and /metrics (--listen): %w", err)
	}
	servers.serve(listener, a.status.Handler())
	return servers, nil
}

// serve reconciles and sets labels until the context ends or a server fails. Then it shuts down.
func (a application) serve(ctx context.Context, servers *servers) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var loops sync.WaitGroup
	loops.Go(func() { a.follower.Run(ctx) })
	loops.Go(func() { a.driver.Reconciler.Run(ctx) })
	notify("READY=1")
	err := servers.wait(ctx)
	stop()
	notify("STOPPING=1")
	ending, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	err = errors.Join(err, servers.shutDown(ending))
	loops.Wait()
	return err
}

// checkNode returns a function that reads this host's node. Calico's startup creates the node, and IPAM assigns no addresses
// without it.
func checkNode(client clientv3.Interface, node string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := client.Nodes().Get(ctx, node, options.GetOptions{})
		if datastore.IsNotFound(err) {
			return fmt.Errorf("node %s does not exist: start Calico on this host", node)
		}
		return err
	}
}

// readMTU returns a function that reads Felix's file: the MTU of the host's interfaces less the encapsulation's overhead.
func readMTU(path string) func() int {
	return func() int {
		content, err := os.ReadFile(path)
		if err != nil {
			return ethernetMTU
		}
		number, err := strconv.Atoi(strings.TrimSpace(string(content)))
		if err != nil || number <= 0 {
			return ethernetMTU
		}
		return number
	}
}

// notify sends the state to systemd, if the unit has Type=notify.
func notify(state string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	connection, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		slog.Warn("state not sent to systemd", "state", state, "error", err)
		return
	}
	defer connection.Close()
	if _, err := connection.Write([]byte(state)); err != nil {
		slog.Warn("state not sent to systemd", "state", state, "error", err)
	}
}
