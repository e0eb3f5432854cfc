package workload

import (
	"context"
	"errors"

	"calico-lab/docker-driver/datastore"
)

// Remover removes endpoints of this node. Removing what does not exist is no error.
type Remover struct {
	Endpoints Endpoints
	// Links are this host's interfaces.
	Links interface{ Remove(name string) error }
	// Ports are this host's published ports.
	Ports interface{ Unpublish(endpointID string) error }
	Retry datastore.Retry
}

// Remove removes the endpoint from this host and from the datastore. It does not release the endpoint's addresses.
func (r Remover) Remove(ctx context.Context, endpointID string) error {
	return errors.Join(r.Detach(endpointID), r.Delete(ctx, endpointID))
}

// Detach removes the endpoint's published ports and its veth pair.
func (r Remover) Detach(endpointID string) error {
	return errors.Join(r.Ports.Unpublish(endpointID), r.Links.Remove(HostInterface(endpointID)))
}

// Delete deletes the WorkloadEndpoint.
func (r Remover) Delete(ctx context.Context, endpointID string) error {
	return r.Retry.Do(ctx, "delete the container's WorkloadEndpoint", func(ctx context.Context) error {
		return r.Endpoints.Delete(ctx, endpointID)
	})
}
