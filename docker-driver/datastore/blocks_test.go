package datastore_test

import (
	"context"
	"testing"

	backend "github.com/projectcalico/calico/libcalico-go/lib/backend/api"
	"github.com/projectcalico/calico/libcalico-go/lib/backend/model"
	"github.com/projectcalico/calico/libcalico-go/lib/clientv3"
	"github.com/projectcalico/calico/libcalico-go/lib/ipam"
	cnet "github.com/projectcalico/calico/libcalico-go/lib/net"

	"calico-lab/docker-driver/datastore"
)

// listBackend is a datastore with blocks and handles. It counts the requests.
type listBackend struct {
	backend.Client
	blocks, handles []*model.KVPair
	requests        int
}

func (l *listBackend) List(_ context.Context, list model.ListInterface, _ string) (*model.KVPairList, error) {
	l.requests++
	if _, ok := list.(model.BlockListOptions); ok {
		return &model.KVPairList{KVPairs: l.blocks}, nil
	}
	return &model.KVPairList{KVPairs: l.handles}, nil
}

// client is a Calico client with this backend.
type client struct {
	clientv3.Interface
	backend *listBackend
}

func (c client) Backend() backend.Client { return c.backend }

func handle(id string) *model.KVPair {
	return &model.KVPair{Key: model.IPAMHandleKey{HandleID: id}, Value: &model.IPAMHandle{}, Revision: "7"}
}

func TestBlocksAllocations(t *testing.T) {
	first, second := 0, 1
	own, other := "docker-1", "docker-2"
	cidr := cnet.MustParseCIDR("192.168.0.64/30")
	block := &model.AllocationBlock{
		CIDR: cidr, Allocations: []*int{nil, &first, &second, nil},
		Attributes: []model.AllocationAttribute{
			{AttrPrimary: &own, AttrSecondary: map[string]string{ipam.AttributeNode: "a0"}},
			{AttrPrimary: &other, AttrSecondary: map[string]string{ipam.AttributeNode: "a1"}},
		},
		SequenceNumberForAllocation: map[string]uint64{"1": 5},
	}
	c := client{backend: &listBackend{
		blocks:  []*model.KVPair{{Key: model.BlockKey{CIDR: cidr}, Value: block}},
		handles: []*model.KVPair{handle(own), handle(other), handle("docker-empty"), handle("other-empty")},
	}}
	blocks, err := datastore.NewBlocks(c)
	if err != nil {
		t.Fatal(err)
	}
	allocations, empty, err := blocks.Allocations(t.Context(), "a0", "docker-")
	if err != nil || c.backend.requests != 2 {
		t.Errorf("%d requests, %v", c.backend.requests, err)
	}
	if len(allocations) != 1 || allocations[0].Address.String() != "192.168.0.65" || allocations[0].Handle != own ||
		allocations[0].Node != "a0" || allocations[0].Sequence != 5 {
		t.Errorf("allocations %+v", allocations)
	}
	if empty["docker-empty"] != "7" || len(empty) != 1 {
		t.Errorf("empty handles %v", empty)
	}
}
