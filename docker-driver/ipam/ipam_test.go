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

// onlyNetv is a datastore with one pool.
type onlyNetv struct{ Pools }

func (onlyNetv) List(context.Context, options.ListOptions) (*v3.IPPoolList, error) {
	return &v3.IPPoolList{Items: []v3.IPPool{{Spec: v3.IPPoolSpec{CIDR: netv}}}}, nil
}

// contended is an IPAM in which other hosts claim the block first, for some tries.
type contended struct {
	Addresses
	claims int
	tries  int
}

func (c *contended) AssignIP(context.Context, calico.AssignIPArgs) error {
	c.tries++
	if c.tries <= c.claims {
		return errors.New("192.168.0.64/26 already claimed by host:a2")
	}
	return nil
}

func TestAnAddressInABlockThatAnotherHostClaimsAtTheSameMoment(t *testing.T) {
	addresses := &contended{claims: 1}
	driver := &Driver{
		Node:      "a1",
		Pools:     onlyNetv{},
		Addresses: addresses,
		Take:      datastore.Patience{Limit: time.Second},
		Log:       slog.New(slog.DiscardHandler),
	}
	address, err := driver.certain(context.Background(), netv, "192.168.0.100")
	if err != nil || address != netip.MustParseAddr("192.168.0.100") || addresses.tries != 2 {
		t.Errorf("got %v, %v after %d tries", address, err, addresses.tries)
	}
}

// released is an IPAM in which an address goes while somebody asks whose it is.
type released struct {
	Addresses
	free bool
}

func (r *released) AssignIP(context.Context, calico.AssignIPArgs) error {
	if !r.free {
		return calicoerrors.ErrorResourceAlreadyExists{}
	}
	return nil
}

func (r *released) GetAssignmentAttributes(context.Context, cnet.IP) (map[string]string, *string, error) {
	r.free = true
	return nil, nil, calicoerrors.ErrorResourceDoesNotExist{}
}

// nobody has an endpoint.
type nobody struct{ Endpoints }

func (nobody) WithAddress(context.Context, netip.Addr) (*libapi.WorkloadEndpoint, error) {
	return nil, nil
}

func TestAnAddressThatIsReleasedWhileItIsAskedFor(t *testing.T) {
	driver := &Driver{
		Node: "a1", Pools: onlyNetv{}, Addresses: &released{}, Endpoints: nobody{},
		Take: datastore.Patience{Limit: time.Second}, Doubt: func() {}, Log: slog.New(slog.DiscardHandler),
	}
	address, err := driver.certain(context.Background(), netv, "192.168.0.100")
	if err != nil || address != netip.MustParseAddr("192.168.0.100") {
		t.Errorf("got %v, %v", address, err)
	}
}
