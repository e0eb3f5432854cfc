// Package driver assembles the driver from its parts. Tests assemble it with fakes of the datastore, the engine and the
// host.
package driver

import (
	"log/slog"
	"maps"
	"net/http"
	"time"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/ipam"
	"calico-lab/docker-driver/network"
	"calico-lab/docker-driver/observe"
	"calico-lab/docker-driver/plugin"
	"calico-lab/docker-driver/publish"
	"calico-lab/docker-driver/reconcile"
	"calico-lab/docker-driver/store"
	"calico-lab/docker-driver/trigger"
	"calico-lab/docker-driver/workload"
)

// NetworkName and IPAMName are the driver names in Docker, and the names of the sockets.
const (
	NetworkName = "calico"
	IPAMName    = "calico-ipam"
)

// Links are this host's interfaces.
type Links interface {
	network.Links
	reconcile.Links
	Remove(name string) error
}

// Datastore is the part of Calico's client that the driver uses.
type Datastore struct {
	Pools       ipam.Pools
	Profiles    network.Profiles
	Endpoints   workload.Client
	Addresses   ipam.Addresses
	Allocations reconcile.Allocations
	Retry       datastore.Retry
}

// Settings are the driver's settings.
type Settings struct {
	Node string
	// StartTimeout limits calls that the start of a container waits for, CleanupTimeout those that remove something.
	StartTimeout, CleanupTimeout time.Duration
	// RecheckDelay is the pause between the two comparisons of a reconciliation, Interval that between reconciliations.
	RecheckDelay, Interval time.Duration
	// DefaultMTU returns the MTU of networks that were created without one.
	DefaultMTU func() int
	// Relabel requests that the labels of all endpoints are set.
	Relabel trigger.Trigger
}

// Driver is the driver without its sockets.
type Driver struct {
	Endpoints  workload.Endpoints
	Ports      *publish.Ports
	Reconciler *reconcile.Reconciler

	ipam    *ipam.Driver
	network *network.Driver
	status  *observe.Status
	log     *slog.Logger
}

// New assembles a driver.
func New(s Settings, d Datastore, engine reconcile.Engine, links Links, records *store.Store, ports *publish.Ports,
	status *observe.Status, log *slog.Logger,
) *Driver {
	startRetry, cleanupRetry := d.Retry.WithTimeout(s.StartTimeout), d.Retry.WithTimeout(s.CleanupTimeout)
	endpoints := workload.Endpoints{Client: d.Endpoints, Node: s.Node}
	remover := workload.Remover{Endpoints: endpoints, Links: links, Ports: ports, Retry: cleanupRetry}
	requested := trigger.New()
	addresses := &ipam.Driver{
		Node: s.Node, Pools: d.Pools, Addresses: d.Addresses, Endpoints: endpoints, Interfaces: links, Remover: remover,
		Records: records, StartRetry: startRetry, CleanupRetry: cleanupRetry, RequestReconcile: requested.Request, Log: log,
	}
	networks := &network.Driver{
		IPAM: addresses, Pools: d.Pools, Profiles: d.Profiles, Endpoints: endpoints, Remover: remover, Links: links,
		Ports: ports, Store: records, DefaultMTU: s.DefaultMTU, StartRetry: startRetry, CleanupRetry: cleanupRetry, Log: log,
	}
	reconciler := &reconcile.Reconciler{
		Driver: NetworkName, Node: s.Node, Engine: engine, Endpoints: endpoints, Network: networks, Remover: remover,
		IPAM: addresses, Allocations: d.Allocations, Addresses: d.Addresses, Links: links, Ports: ports, Records: records,
		Retry: cleanupRetry, RecheckDelay: s.RecheckDelay, Interval: s.Interval, Requested: requested, Log: log,
		Done: func(repaired map[string]int, err error) {
			status.Reconciled(repaired, err)
			if repaired[reconcile.RecreatedEndpoint] > 0 {
				s.Relabel.Request()
			}
		},
	}
	return &Driver{
		Endpoints: endpoints, Ports: ports, Reconciler: reconciler,
		ipam: addresses, network: networks, status: status, log: log,
	}
}

// Handlers returns the HTTP handler of each socket by name. The network driver's socket also serves the IPAM calls, for
// networks that were created with --ipam-driver calico.
func (d *Driver) Handlers(journal *plugin.Journal) map[string]http.Handler {
	both := d.network.Calls()
	maps.Copy(both, d.ipam.Calls())
	return map[string]http.Handler{
		NetworkName: plugin.Handler([]string{"NetworkDriver", "IpamDriver"}, both, journal, d.log, d.observe),
		IPAMName:    plugin.Handler([]string{"IpamDriver"}, d.ipam.Calls(), journal, d.log, d.observe),
	}
}

func (d *Driver) observe(call string, took time.Duration, err error) {
	d.status.Call(call, took, err)
	if err != nil {
		// A failed call may have left something that it could not remove.
		d.Reconciler.Requested.Request()
	}
}
