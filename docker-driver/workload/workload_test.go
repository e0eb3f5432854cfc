package workload_test

import (
	"context"
	"maps"
	"net/netip"
	"testing"

	libapi "github.com/projectcalico/calico/libcalico-go/lib/apis/v3"
	"github.com/projectcalico/calico/libcalico-go/lib/options"

	"calico-lab/docker-driver/workload"
)

// stored is a client with one endpoint.
type stored struct {
	workload.Client
	endpoint *libapi.WorkloadEndpoint
}

func (s *stored) Create(
	_ context.Context, e *libapi.WorkloadEndpoint, _ options.SetOptions,
) (*libapi.WorkloadEndpoint, error) {
	s.endpoint = e.DeepCopy()
	return e, nil
}

func (s *stored) Update(
	ctx context.Context, e *libapi.WorkloadEndpoint, o options.SetOptions,
) (*libapi.WorkloadEndpoint, error) {
	return s.Create(ctx, e, o)
}

func (s *stored) Get(context.Context, string, string, options.GetOptions) (*libapi.WorkloadEndpoint, error) {
	return s.endpoint.DeepCopy(), nil
}

func TestEndpointIsMarkedUntilItHasItsContainersLabels(t *testing.T) {
	client := &stored{}
	endpoints := workload.Endpoints{Client: client, Node: "a0"}
	address := []netip.Addr{netip.MustParseAddr("192.168.0.100")}
	endpoint := endpoints.New("aaaaaaaaaaaabbbb", "02:42:c0:a8:00:64", address, []string{"netv"})
	if err := endpoints.Put(t.Context(), endpoint); err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{workload.Starting: "true"}; !maps.Equal(client.endpoint.Labels, want) {
		t.Errorf("a new endpoint has the labels %v, want %v", client.endpoint.Labels, want)
	}
	wanted := map[string]string{"calico-lab.role": "student"}
	if err := endpoints.SetContainer(t.Context(), "aaaaaaaaaaaabbbb", "c1", "web", wanted); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(client.endpoint.Labels, wanted) {
		t.Errorf("the endpoint has the labels %v, want %v", client.endpoint.Labels, wanted)
	}
}
