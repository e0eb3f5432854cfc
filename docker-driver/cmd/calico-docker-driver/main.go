// Command calico-docker-driver is the network and IPAM driver of Docker for Calico: containers of every host get
// addresses from Calico's pools and are endpoints of its policies.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
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
)

// version is set when the program is built.
var version = "unknown"

// give bounds calls that hand something back. They may fail soon: Docker goes on, and reconciliation does it later.
const give = 5 * time.Second

// usualMTU is Ethernet's, for networks of which nobody says otherwise.
const usualMTU = 1500

type settings struct {
	node       string
	socketDir  string
	stateDir   string
	listen     string
	docker     string
	mtuFile    string
	take       time.Duration
	settle     time.Duration
	every      time.Duration
	debug      bool
	askVersion bool
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		slog.Error("the driver stops", "error", err)
		os.Exit(1)
	}
}

func read(arguments []string) (settings, error) {
	var s settings
	flags := flag.NewFlagSet("calico-docker-driver", flag.ContinueOnError)
	flags.StringVar(&s.node, "node", os.Getenv("NODENAME"), "this host's name in Calico (NODENAME; else the hostname)")
	flags.StringVar(&s.socketDir, "socket-dir", "/run/docker/plugins", "folder in which Docker looks for plugins")
	flags.StringVar(&s.stateDir, "state-dir", "/var/lib/calico-lab/docker-driver",
		"folder for the record of networks, and of calls under way")
	flags.StringVar(&s.listen, "listen", "127.0.0.1:9101", "address for /readiness and /metrics; empty for none")
	flags.StringVar(&s.docker, "docker-socket", "/var/run/docker.sock", "Docker's API, for events and reconciliation")
	flags.StringVar(&s.mtuFile, "mtu-file", "/var/lib/calico/mtu", "file in which Felix writes the MTU for containers")
	flags.DurationVar(&s.take, "patience", 75*time.Second,
		"how long the start of a container waits for etcd; Docker does not try again by itself")
	flags.DurationVar(&s.settle, "settle", 10*time.Second, "time between the two looks of a reconciliation")
	flags.DurationVar(&s.every, "reconcile-every", 5*time.Minute, "time between reconciliations")
	flags.BoolVar(&s.debug, "debug", false, "log requests and responses in full")
	flags.BoolVar(&s.askVersion, "version", false, "print the version and leave")
	if err := flags.Parse(arguments); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if s.node == "" {
		name, err := os.Hostname()
		if err != nil {
			return s, fmt.Errorf("find this host's name: %w", err)
		}
		s.node = strings.ToLower(name)
	}
	return s, nil
}

func run(arguments []string) error {
	s, err := read(arguments)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.askVersion {
		fmt.Println(version)
		return nil
	}
	level := slog.LevelInfo
	if s.debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log)
	// Calico's library logs every step by logrus; its errors come back to this driver, which logs them itself.
	logrus.SetOutput(io.Discard)

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	client, patience, err := datastore.Connect()
	if err != nil {
		return err
	}
	blocks, err := datastore.BlocksOf(client)
	if err != nil {
		return err
	}
	addresses := client.IPAM()
	records, err := store.Open(s.stateDir)
	if err != nil {
		return err
	}
	host := link.Host{}
	docker := engine.At(s.docker)
	observed := &observe.Record{Version: version, Datastore: nodeKnown(client, s.node)}
	ports := &publish.Ports{Store: records, Run: publish.Run, Attached: host.Exists, Hold: publish.Hold}
	var follower *labels.Follower
	whole := driver.New(
		driver.Settings{
			Node: s.node, Take: s.take, Give: give, Settle: s.settle, Every: s.every, DefaultMTU: mtu(s.mtuFile),
			Relabel: func() { follower.Again() },
		},
		driver.Datastore{
			Pools: client.IPPools(), Profiles: client.Profiles(), Endpoints: client.WorkloadEndpoints(),
			Addresses: addresses, Allocations: blocks, Patience: patience,
		},
		docker, host, records, ports, observed, log,
	)
	follower = labels.New(labels.Follower{
		Engine: docker, Endpoints: whole.Endpoints, Datastore: patience.Within(s.take),
		Subscribed: whole.Reconciler.Ask, Retry: time.Minute, Log: log,
	})
	if err := ports.Restore(); err != nil {
		log.Error("published ports are not restored in full", "error", err)
	}

	unanswered, err := plugin.OpenUnanswered(filepath.Join(s.stateDir, "unanswered"))
	if err != nil {
		return err
	}
	handlers := whole.Handlers(unanswered)
	failed := make(chan error, len(handlers)+1)
	var running []*http.Server
	serve := func(listener net.Listener, handler http.Handler) {
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		running = append(running, server)
		go func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s: %w", listener.Addr(), err)
			}
		}()
	}
	for name, handler := range handlers {
		listener, err := plugin.Listen(s.socketDir, name)
		if err != nil {
			return err
		}
		serve(listener, handler)
	}
	if s.listen != "" {
		listener, err := net.Listen("tcp", s.listen)
		if err != nil {
			return fmt.Errorf("listen for /readiness and /metrics (--listen): %w", err)
		}
		serve(listener, observed.Handler())
	}
	var followers sync.WaitGroup
	followers.Go(func() { follower.Run(ctx) })
	followers.Go(func() { whole.Reconciler.Run(ctx) })
	log.Info("the driver serves", "version", version, "node", s.node, "sockets", s.socketDir, "etcd", patience.Where)
	notify("READY=1")

	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	stop()
	notify("STOPPING=1")
	ending, cancel := context.WithTimeout(context.Background(), give)
	defer cancel()
	err = errors.Join(err, shutDown(ending, running))
	followers.Wait()
	return err
}

// shutDown lets the calls that are under way end. One that still waits for etcd then is written down, and the next driver
// answers it when Docker repeats it.
func shutDown(ctx context.Context, running []*http.Server) error {
	var failed error
	for _, server := range running {
		if err := server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// nodeKnown asks for this host's node, which Calico's startup makes and without which no address can be had.
func nodeKnown(client clientv3.Interface, node string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := client.Nodes().Get(ctx, node, options.GetOptions{})
		if datastore.Absent(err) {
			return fmt.Errorf("node %s is not there: start Calico on this host", node)
		}
		return err
	}
}

// mtu reads what Felix found out: the MTU of the host's links less what the encapsulation in use needs.
func mtu(path string) func() int {
	return func() int {
		content, err := os.ReadFile(path)
		if err != nil {
			return usualMTU
		}
		number, err := strconv.Atoi(strings.TrimSpace(string(content)))
		if err != nil || number <= 0 {
			return usualMTU
		}
		return number
	}
}

// notify tells systemd, when it asked to be told (Type=notify).
func notify(state string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	connection, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		slog.Warn("systemd is not told", "state", state, "error", err)
		return
	}
	defer connection.Close()
	if _, err := connection.Write([]byte(state)); err != nil {
		slog.Warn("systemd is not told", "state", state, "error", err)
	}
}
