// Package driver puts the parts together: which plugin types stand behind which socket, and who tells whom. It owes
// tests the same driver as the one that serves, with another datastore and another host behind it.
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
	"calico-lab/docker-driver/workload"
)

// NetworkName and IPAMName are the names by which Docker finds the sockets.
const (
	NetworkName = "calico"
	IPAMName    = "calico-ipam"
)

// Addresses is what is needed of Calico's IPAM client.
type Addresses interface {
	ipam.Addresses
	reconcile.Addresses
}

// Links are this host's interfaces.
type Links interface {
	network.Links
	reconcile.Links
}

// Datastore is what is needed of Calico's client.
type Datastore struct {
	Pools       ipam.Pools
	Profiles    network.Profiles
	Endpoints   workload.Client
	Addresses   Addresses
	Allocations reconcile.Allocations
	Patience    datastore.Patience
}

// Settings are the operator's.
type Settings struct {
	Node string
	// Take bounds calls that a container's start waits for, Give those that hand something back.
	Take, Give time.Duration
	// Settle is the time between the two looks of a reconciliation, Every that between reconciliations.
	Settle, Every time.Duration
	// DefaultMTU is the MTU of networks that were created without one.
	DefaultMTU func() int
	// Relabel is told when endpoints were made without their containers' labels.
	Relabel func()
}

// Driver is the whole driver but for its sockets.
type Driver struct {
	Endpoints  workload.Endpoints
	Ports      *publish.Ports
	Reconciler *reconcile.Reconciler

	ipam     *ipam.Driver
	network  *network.Driver
	observed *observe.Record
	log      *slog.Logger
}

// New assembles a driver. The ports are those of the same record and host.
func New(s Settings, d Datastore, engine reconcile.Engine, links Links, records *store.Store, ports *publish.Ports,
	observed *observe.Record, log *slog.Logger,
) *Driver {
	take, give := d.Patience.Within(s.Take), d.Patience.Within(s.Give)
	endpoints := workload.Endpoints{Client: d.Endpoints, Node: s.Node}
	addresses := &ipam.Driver{
		Node: s.Node, Pools: d.Pools, Addresses: d.Addresses, Endpoints: endpoints, Attached: links.Exists,
		Owed: records, Take: take, Give: give, Log: log,
	}
	networks := &network.Driver{
		Pools: d.Pools, Profiles: d.Profiles, Endpoints: endpoints, Links: links, Publisher: ports, Store: records,
		Addresses: addresses, Created: addresses.Created, Deleted: addresses.Deleted,
		DefaultMTU: s.DefaultMTU, Take: take, Give: give, Log: log,
	}
	addresses.Remove, addresses.Used, networks.LeavePool = networks.Remove, networks.Uses, addresses.LeavePool
	reconciler := reconcile.New(reconcile.Reconciler{
		Driver: NetworkName, Node: s.Node, Engine: engine, Endpoints: endpoints, Network: networks, Pools: addresses,
		Allocations: d.Allocations, Addresses: d.Addresses, Links: links, Ports: ports,
		Claimed: addresses.Claimed, Starting: addresses.Starting, ReleaseLeft: addresses.ReleaseLeft,
		Datastore: give, Settle: s.Settle, Every: s.Every, Log: log,
		Done: func(mended map[string]int, err error) {
			observed.Reconciled(mended, err)
			if mended[reconcile.StoredAgain] > 0 {
				s.Relabel()
			}
		},
	})
	addresses.Doubt = reconciler.Ask
	return &Driver{
		Endpoints: endpoints, Ports: ports, Reconciler: reconciler,
		ipam: addresses, network: networks, observed: observed, log: log,
	}
}

// Handlers returns what serves each socket, by its name. The network driver's socket answers IPAM calls as well, for
// people who give the same name twice.
func (d *Driver) Handlers(unanswered *plugin.Unanswered) map[string]http.Handler {
	both := d.network.Calls()
	maps.Copy(both, d.ipam.Calls())
	return map[string]http.Handler{
		NetworkName: plugin.Handler([]string{"NetworkDriver", "IpamDriver"}, both, unanswered, d.log, d.answered),
		IPAMName:    plugin.Handler([]string{"IpamDriver"}, d.ipam.Calls(), unanswered, d.log, d.answered),
	}
}

func (d *Driver) answered(call string, took time.Duration, err error) {
	d.observed.Call(call, took, err)
	if err != nil {
		// What a refused call left, or could not give back, is found by comparing.
		d.Reconciler.Ask()
	}
}
