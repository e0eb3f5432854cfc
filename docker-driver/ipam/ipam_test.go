package ipam

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	calicoerrors "github.com/projectcalico/calico/libcalico-go/lib/errors"
	calico "github.com/projectcalico/calico/libcalico-go/lib/ipam"
	cnet "github.com/projectcalico/calico/libcalico-go/lib/net"

	"calico-lab/docker-driver/datastore"
)

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
	pool := datastore.Pool{Name: "netv", CIDR: netip.MustParsePrefix("192.168.0.0/16")}
	addresses := &contended{claims: 1}
	driver := &Driver{
		Node:      "a1",
		Addresses: addresses,
		Take:      datastore.Patience{Limit: time.Second},
		Log:       slog.New(slog.DiscardHandler),
	}
	address, err := driver.certain(context.Background(), pool, "192.168.0.100")
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

func TestAnAddressThatIsReleasedWhileItIsAskedFor(t *testing.T) {
	pool := datastore.Pool{Name: "netv", CIDR: netip.MustParsePrefix("192.168.0.0/16")}
	driver := &Driver{
		Node: "a1", Addresses: &released{}, Take: datastore.Patience{Limit: time.Second},
		Doubt: func() {}, Log: slog.New(slog.DiscardHandler),
	}
	address, err := driver.certain(context.Background(), pool, "192.168.0.100")
	if err != nil || address != netip.MustParseAddr("192.168.0.100") {
		t.Errorf("got %v, %v", address, err)
	}
}
