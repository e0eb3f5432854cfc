package ipam

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	libapi "github.com/projectcalico/calico/libcalico-go/lib/apis/v3"
	calicoerrors "github.com/projectcalico/calico/libcalico-go/lib/errors"
	calico "github.com/projectcalico/calico/libcalico-go/lib/ipam"
	cnet "github.com/projectcalico/calico/libcalico-go/lib/net"
	"github.com/projectcalico/calico/libcalico-go/lib/options"

	"calico-lab/docker-driver/datastore"
)

const netv = "192.168.0.0/16"

// onePool is a datastore with one pool.
type onePool struct{ Pools }

func (onePool) List(context.Context, options.ListOptions) (*v3.IPPoolList, error) {
	return &v3.IPPoolList{Items: []v3.IPPool{{Spec: v3.IPPoolSpec{CIDR: netv}}}}, nil
}

// conflicting is an IPAM in which another host claims the block first, for some attempts.
type conflicting struct {
	Addresses
	conflicts int
	attempts  int
}

func (c *conflicting) AssignIP(context.Context, calico.AssignIPArgs) error {
	c.attempts++
	if c.attempts <= c.conflicts {
		return errors.New("192.168.0.64/26 already claimed by host:a2")
	}
	return nil
}

func TestAssignRequestedAfterBlockConflict(t *testing.T) {
	addresses := &conflicting{conflicts: 1}
	driver := &Driver{
		Node:       "a1",
		Pools:      onePool{},
		Addresses:  addresses,
		StartRetry: datastore.Retry{Timeout: time.Second},
		Log:        slog.New(slog.DiscardHandler),
	}
	address, err := driver.assignRequested(context.Background(), netv, "192.168.0.100")
	if err != nil || address != netip.MustParseAddr("192.168.0.100") || addresses.attempts != 2 {
		t.Errorf("got %v, %v after %d attempts", address, err, addresses.attempts)
	}
}

// releasing is an IPAM in which an address is released while its owner is looked up.
type releasing struct {
	Addresses
	free bool
}

func (r *releasing) AssignIP(context.Context, calico.AssignIPArgs) error {
	if !r.free {
		return calicoerrors.ErrorResourceAlreadyExists{}
	}
	return nil
}

func (r *releasing) GetAssignmentAttributes(context.Context, cnet.IP) (map[string]string, *string, error) {
	r.free = true
	return nil, nil, calicoerrors.ErrorResourceDoesNotExist{}
}

// noEndpoints is a datastore without endpoints.
type noEndpoints struct{ Endpoints }

func (noEndpoints) WithAddress(context.Context, netip.Addr) (*libapi.WorkloadEndpoint, error) {
	return nil, nil
}

func TestAssignRequestedAfterReleaseDuringLookUp(t *testing.T) {
	driver := &Driver{
		Node: "a1", Pools: onePool{}, Addresses: &releasing{}, Endpoints: noEndpoints{},
		StartRetry: datastore.Retry{Timeout: time.Second}, RequestReconcile: func() {}, Log: slog.New(slog.DiscardHandler),
	}
	address, err := driver.assignRequested(context.Background(), netv, "192.168.0.100")
	if err != nil || address != netip.MustParseAddr("192.168.0.100") {
		t.Errorf("got %v, %v", address, err)
	}
}
