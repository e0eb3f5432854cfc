// Package workload keeps this node's WorkloadEndpoints: the records by which Felix knows a container's interface,
// addresses, labels and profiles. It owes that creating and deleting may be repeated, and that labels survive both.
package workload

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	libapi "github.com/projectcalico/calico/libcalico-go/lib/apis/v3"
	"github.com/projectcalico/calico/libcalico-go/lib/names"
	"github.com/projectcalico/calico/libcalico-go/lib/options"

	"calico-lab/docker-driver/datastore"
)

// orchestrator, which is also the namespace and the workload, is the one that Calico keeps for Docker: names of
// endpoints are built after it.
const orchestrator = "libnetwork"

// ContainerName is the annotation of an endpoint that holds its container's name.
const ContainerName = "org.projectcalico.docker/container-name"

// identifierLength is what fits beside a prefix of four letters in the kernel's 15 characters.
const identifierLength = 11

// Client is the part of Calico's WorkloadEndpoint client that is needed.
type Client interface {
	Create(ctx context.Context, e *libapi.WorkloadEndpoint, o options.SetOptions) (*libapi.WorkloadEndpoint, error)
	Update(ctx context.Context, e *libapi.WorkloadEndpoint, o options.SetOptions) (*libapi.WorkloadEndpoint, error)
	Delete(ctx context.Context, namespace, name string, o options.DeleteOptions) (*libapi.WorkloadEndpoint, error)
	Get(ctx context.Context, namespace, name string, o options.GetOptions) (*libapi.WorkloadEndpoint, error)
	List(ctx context.Context, o options.ListOptions) (*libapi.WorkloadEndpointList, error)
}

// Endpoints are the endpoints of one node.
type Endpoints struct {
	Client Client
	Node   string
}

// HostInterface is the name of the host's end of the endpoint's veth pair. Felix takes care of what starts with cali.
func HostInterface(endpointID string) string {
	return "cali" + shortened(endpointID)
}

// PeerInterface is the name of the other end until the engine moves it into the container.
func PeerInterface(endpointID string) string {
	return "temp" + shortened(endpointID)
}

func shortened(endpointID string) string {
	return endpointID[:min(identifierLength, len(endpointID))]
}

// New makes the record of an endpoint, not yet stored.
func (e Endpoints) New(endpointID, mac string, addresses []netip.Addr, profiles []string) *libapi.WorkloadEndpoint {
	endpoint := libapi.NewWorkloadEndpoint()
	endpoint.Namespace = orchestrator
	endpoint.Spec = libapi.WorkloadEndpointSpec{
		Orchestrator:  orchestrator,
		Workload:      orchestrator,
		Node:          e.Node,
		Endpoint:      endpointID,
		InterfaceName: HostInterface(endpointID),
		MAC:           mac,
		Profiles:      profiles,
	}
	for _, address := range addresses {
		network := netip.PrefixFrom(address, address.BitLen()).String()
		endpoint.Spec.IPNetworks = append(endpoint.Spec.IPNetworks, network)
	}
	return endpoint
}

// Put stores the endpoint; one that is there already gets the same specification and keeps its labels.
func (e Endpoints) Put(ctx context.Context, endpoint *libapi.WorkloadEndpoint) error {
	_, err := e.Client.Create(ctx, endpoint, options.SetOptions{})
	if !datastore.Present(err) {
		return err
	}
	return e.change(ctx, endpoint.Spec.Endpoint, func(old *libapi.WorkloadEndpoint) bool {
		spec := endpoint.Spec
		spec.ContainerID = old.Spec.ContainerID
		old.Spec = spec
		return true
	})
}

// Get returns the endpoint.
func (e Endpoints) Get(ctx context.Context, endpointID string) (*libapi.WorkloadEndpoint, error) {
	name, err := e.name(endpointID)
	if err != nil {
		return nil, err
	}
	return e.Client.Get(ctx, orchestrator, name, options.GetOptions{})
}

// Delete removes the endpoint; one that is not there is no error.
func (e Endpoints) Delete(ctx context.Context, endpointID string) error {
	name, err := e.name(endpointID)
	if err != nil {
		return err
	}
	_, err = e.Client.Delete(ctx, orchestrator, name, options.DeleteOptions{})
	if datastore.Absent(err) {
		return nil
	}
	return err
}

// Identify writes onto the endpoint whose it is and which labels policies select it by.
func (e Endpoints) Identify(ctx context.Context, endpointID, containerID, name string, labels map[string]string) error {
	return e.change(ctx, endpointID, func(endpoint *libapi.WorkloadEndpoint) bool {
		wanted := maps.Clone(labels)
		if wanted == nil {
			wanted = map[string]string{}
		}
		// Calico's client adds these two itself when it stores an endpoint.
		for _, own := range []string{"projectcalico.org/namespace", "projectcalico.org/orchestrator"} {
			if value, there := endpoint.Labels[own]; there {
				wanted[own] = value
			}
		}
		if endpoint.Spec.ContainerID == containerID && endpoint.Annotations[ContainerName] == name &&
			maps.Equal(endpoint.Labels, wanted) {
			return false
		}
		endpoint.Spec.ContainerID = containerID
		endpoint.Labels = wanted
		if endpoint.Annotations == nil {
			endpoint.Annotations = map[string]string{}
		}
		endpoint.Annotations[ContainerName] = name
		return true
	})
}

// OfNode lists the endpoints of this node.
func (e Endpoints) OfNode(ctx context.Context) ([]libapi.WorkloadEndpoint, error) {
	prefix, err := e.name("")
	if err != nil {
		return nil, err
	}
	list, err := e.Client.List(ctx, options.ListOptions{Namespace: orchestrator, Name: prefix, Prefix: true})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(list.Items, func(endpoint libapi.WorkloadEndpoint) bool {
		return endpoint.Spec.Node != e.Node
	}), nil
}

// WithProfile tells whether any node has an endpoint with the profile.
func (e Endpoints) WithProfile(ctx context.Context, profile string) (bool, error) {
	list, err := e.Client.List(ctx, options.ListOptions{})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(list.Items, func(endpoint libapi.WorkloadEndpoint) bool {
		return slices.Contains(endpoint.Spec.Profiles, profile)
	}), nil
}

// WithAddress returns the endpoint of any node that has the address, or nil.
func (e Endpoints) WithAddress(ctx context.Context, address netip.Addr) (*libapi.WorkloadEndpoint, error) {
	list, err := e.Client.List(ctx, options.ListOptions{})
	if err != nil {
		return nil, err
	}
	return withAddress(list.Items, address), nil
}

// OwnWithAddress returns the endpoint of this node that has the address, or nil.
func (e Endpoints) OwnWithAddress(ctx context.Context, address netip.Addr) (*libapi.WorkloadEndpoint, error) {
	own, err := e.OfNode(ctx)
	if err != nil {
		return nil, err
	}
	return withAddress(own, address), nil
}

func withAddress(endpoints []libapi.WorkloadEndpoint, address netip.Addr) *libapi.WorkloadEndpoint {
	for i := range endpoints {
		if slices.Contains(Addresses(&endpoints[i]), address) {
			return &endpoints[i]
		}
	}
	return nil
}

// Addresses returns the endpoint's addresses.
func Addresses(endpoint *libapi.WorkloadEndpoint) []netip.Addr {
	var addresses []netip.Addr
	for _, network := range endpoint.Spec.IPNetworks {
		if prefix, err := netip.ParsePrefix(network); err == nil {
			addresses = append(addresses, prefix.Addr())
		}
	}
	return addresses
}

// rounds is how often a change is tried again when Felix or another writer was quicker.
const rounds = 5

func (e Endpoints) change(ctx context.Context, id string, edit func(*libapi.WorkloadEndpoint) bool) error {
	var err error
	for range rounds {
		var endpoint *libapi.WorkloadEndpoint
		if endpoint, err = e.Get(ctx, id); err != nil {
			return err
		}
		if !edit(endpoint) {
			return nil
		}
		if _, err = e.Client.Update(ctx, endpoint, options.SetOptions{}); !datastore.Conflict(err) {
			return err
		}
	}
	return err
}

// name is the name of the endpoint's record, or for an empty ID how the names of all of the node start.
func (e Endpoints) name(endpointID string) (string, error) {
	name, err := names.WorkloadEndpointIdentifiers{
		Node:         e.Node,
		Orchestrator: orchestrator,
		Endpoint:     endpointID,
		Workload:     orchestrator,
	}.CalculateWorkloadEndpointName(endpointID == "")
	if err != nil {
		return "", fmt.Errorf("name endpoint %q of node %q: %w", endpointID, e.Node, err)
	}
	return name, nil
}
