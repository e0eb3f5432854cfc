// Package workload stores this node's WorkloadEndpoints: the resources from which Felix reads a container's interface,
// addresses, labels and profiles. Creating and deleting are idempotent, and creating again keeps the labels.
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

// orchestrator is Calico's name for Docker. It is also the namespace and the workload, and part of the endpoints' names.
const orchestrator = "libnetwork"

// ContainerName is the annotation with the name of the endpoint's container.
const ContainerName = "org.projectcalico.docker/container-name"

// Starting is the label of an endpoint that does not have its container's labels yet. Docker passes them to no network
// driver, and reports the container only after its start. A policy that must hold from the first packet on selects it too.
const Starting = "org.projectcalico.docker/starting"

// identifierLength is the kernel's limit for interface names, 15 characters, less the prefix of four.
const identifierLength = 11

// Client is the part of Calico's WorkloadEndpoint client that the driver uses.
type Client interface {
	Create(ctx context.Context, e *libapi.WorkloadEndpoint, o options.SetOptions) (*libapi.WorkloadEndpoint, error)
	Update(ctx context.Context, e *libapi.WorkloadEndpoint, o options.SetOptions) (*libapi.WorkloadEndpoint, error)
	Delete(ctx context.Context, namespace, name string, o options.DeleteOptions) (*libapi.WorkloadEndpoint, error)
	Get(ctx context.Context, namespace, name string, o options.GetOptions) (*libapi.WorkloadEndpoint, error)
	List(ctx context.Context, o options.ListOptions) (*libapi.WorkloadEndpointList, error)
}

// Endpoints reads and writes the WorkloadEndpoints of one node.
type Endpoints struct {
	Client Client
	Node   string
}

// HostInterface returns the name of the veth pair's host interface. Felix manages interfaces whose names start with cali.
func HostInterface(endpointID string) string {
	return "cali" + shortened(endpointID)
}

// PeerInterface returns the name of the peer interface until the engine moves it into the container.
func PeerInterface(endpointID string) string {
	return "temp" + shortened(endpointID)
}

func shortened(endpointID string) string {
	return endpointID[:min(identifierLength, len(endpointID))]
}

// New returns a WorkloadEndpoint. It does not store it.
func (e Endpoints) New(endpointID, mac string, addresses []netip.Addr, profiles []string) *libapi.WorkloadEndpoint {
	endpoint := libapi.NewWorkloadEndpoint()
	endpoint.Namespace = orchestrator
	endpoint.Labels = map[string]string{Starting: "true"}
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

// Put stores the endpoint. An existing endpoint gets the new specification and keeps its labels.
func (e Endpoints) Put(ctx context.Context, endpoint *libapi.WorkloadEndpoint) error {
	_, err := e.Client.Create(ctx, endpoint, options.SetOptions{})
	if !datastore.IsAlreadyExists(err) {
		return err
	}
	return e.update(ctx, endpoint.Spec.Endpoint, func(old *libapi.WorkloadEndpoint) bool {
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

// Delete deletes the endpoint. A missing endpoint is no error. It deletes the version that it reads, because etcd may execute
// the request after its time-out, when the endpoint is stored again.
func (e Endpoints) Delete(ctx context.Context, endpointID string) error {
	err := e.change(ctx, endpointID, func(endpoint *libapi.WorkloadEndpoint) error {
		_, err := e.Client.Delete(ctx, orchestrator, endpoint.Name, options.DeleteOptions{
			ResourceVersion: endpoint.ResourceVersion,
		})
		return err
	})
	if datastore.IsNotFound(err) {
		return nil
	}
	return err
}

// SetContainer sets the endpoint's container and its labels, by which policies select it, and removes the label Starting.
func (e Endpoints) SetContainer(ctx context.Context, endpointID, containerID, name string, labels map[string]string) error {
	return e.update(ctx, endpointID, func(endpoint *libapi.WorkloadEndpoint) bool {
		wanted := maps.Clone(labels)
		if wanted == nil {
			wanted = map[string]string{}
		}
		// Calico's client adds these two labels when it stores an endpoint.
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

// ListNode lists the endpoints of this node.
func (e Endpoints) ListNode(ctx context.Context) ([]libapi.WorkloadEndpoint, error) {
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

// UseProfile reports whether an endpoint of any node has the profile.
func (e Endpoints) UseProfile(ctx context.Context, profile string) (bool, error) {
	list, err := e.Client.List(ctx, options.ListOptions{})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(list.Items, func(endpoint libapi.WorkloadEndpoint) bool {
		return slices.Contains(endpoint.Spec.Profiles, profile)
	}), nil
}

// WithAddress returns the endpoint with the address, of any node, or nil.
func (e Endpoints) WithAddress(ctx context.Context, address netip.Addr) (*libapi.WorkloadEndpoint, error) {
	list, err := e.Client.List(ctx, options.ListOptions{})
	if err != nil {
		return nil, err
	}
	return withAddress(list.Items, address), nil
}

// NodeWithAddress returns this node's endpoint with the address, or nil.
func (e Endpoints) NodeWithAddress(ctx context.Context, address netip.Addr) (*libapi.WorkloadEndpoint, error) {
	own, err := e.ListNode(ctx)
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

// update changes the endpoint, unless edit returns false.
func (e Endpoints) update(ctx context.Context, id string, edit func(*libapi.WorkloadEndpoint) bool) error {
	return e.change(ctx, id, func(endpoint *libapi.WorkloadEndpoint) error {
		if !edit(endpoint) {
			return nil
		}
		_, err := e.Client.Update(ctx, endpoint, options.SetOptions{})
		return err
	})
}

// changeAttempts limits the retries of a change after conflicts with other writers, such as Felix.
const changeAttempts = 5

// change reads the endpoint and writes it. After a conflict it reads it again.
func (e Endpoints) change(ctx context.Context, id string, write func(*libapi.WorkloadEndpoint) error) error {
	var err error
	for range changeAttempts {
		var endpoint *libapi.WorkloadEndpoint
		if endpoint, err = e.Get(ctx, id); err != nil {
			return err
		}
		if err = write(endpoint); !datastore.IsConflict(err) {
			return err
		}
	}
	return err
}

// name returns the resource name of the endpoint; for an empty ID, the prefix of the names of all endpoints of the node.
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
