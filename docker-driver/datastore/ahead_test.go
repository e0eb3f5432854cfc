package datastore_test

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	libapi "github.com/projectcalico/calico/libcalico-go/lib/apis/v3"
	backend "github.com/projectcalico/calico/libcalico-go/lib/backend/api"
	"github.com/projectcalico/calico/libcalico-go/lib/backend/model"
	"github.com/projectcalico/calico/libcalico-go/lib/clientv3"
	calicoerrors "github.com/projectcalico/calico/libcalico-go/lib/errors"
	"github.com/projectcalico/calico/libcalico-go/lib/ipam"
	cnet "github.com/projectcalico/calico/libcalico-go/lib/net"
	"github.com/projectcalico/calico/libcalico-go/lib/options"

	"calico-lab/docker-driver/datastore"
)

// trip is how long every request takes.
const trip = time.Second

// memory is a datastore that keeps what Calico's IPAM writes.
type memory struct {
	backend.Client
	revision int
	pairs    map[string]*model.KVPair
	// before is done before the next block is written.
	before func()
}

func (m *memory) put(key model.Key, value any) *model.KVPair {
	m.revision++
	m.pairs[key.String()] = &model.KVPair{Key: key, Value: value, Revision: strconv.Itoa(m.revision)}
	return m.pairs[key.String()]
}

func (m *memory) Get(_ context.Context, key model.Key, _ string) (*model.KVPair, error) {
	time.Sleep(trip)
	found, ok := m.pairs[key.String()]
	if !ok {
		return nil, calicoerrors.ErrorResourceDoesNotExist{Identifier: key}
	}
	pair := *found
	if block, ok := found.Value.(*model.AllocationBlock); ok {
		pair.Value = clone(block)
	}
	return &pair, nil
}

func (m *memory) List(_ context.Context, list model.ListInterface, _ string) (*model.KVPairList, error) {
	time.Sleep(trip)
	answer := &model.KVPairList{}
	for _, pair := range m.pairs {
		var listed bool
		switch wanted := list.(type) {
		case model.BlockAffinityListOptions:
			key, ok := pair.Key.(model.BlockAffinityKey)
			listed = ok && key.Host == wanted.Host
		case model.BlockListOptions:
			_, listed = pair.Key.(model.BlockKey)
		case model.IPAMHandleListOptions:
			_, listed = pair.Key.(model.IPAMHandleKey)
		}
		if listed {
			answer.KVPairs = append(answer.KVPairs, pair)
		}
	}
	return answer, nil
}

func (m *memory) Create(_ context.Context, pair *model.KVPair) (*model.KVPair, error) {
	time.Sleep(trip)
	return m.put(pair.Key, pair.Value), nil
}

func (m *memory) Update(_ context.Context, pair *model.KVPair) (*model.KVPair, error) {
	time.Sleep(trip)
	if before := m.before; before != nil {
		m.before = nil
		before()
	}
	if m.pairs[pair.Key.String()].Revision != pair.Revision {
		return nil, calicoerrors.ErrorResourceUpdateConflict{Identifier: pair.Key}
	}
	return m.put(pair.Key, pair.Value), nil
}

func (m *memory) Delete(_ context.Context, key model.Key, _ string) (*model.KVPair, error) {
	return m.DeleteKVP(context.Background(), &model.KVPair{Key: key})
}

func (m *memory) DeleteKVP(_ context.Context, pair *model.KVPair) (*model.KVPair, error) {
	time.Sleep(trip)
	delete(m.pairs, pair.Key.String())
	return pair, nil
}

func clone(block *model.AllocationBlock) *model.AllocationBlock {
	var copied model.AllocationBlock
	text, err := json.Marshal(block)
	if err == nil {
		err = json.Unmarshal(text, &copied)
	}
	if err != nil {
		panic(err)
	}
	return &copied
}

// client is Calico's client in front of such a datastore.
type client struct {
	clientv3.Interface
	memory *memory
	pools  []v3.IPPool
}

type poolClient struct {
	clientv3.IPPoolInterface
	client
}

type reservationClient struct {
	clientv3.IPReservationInterface
}

func (c client) Backend() backend.Client                         { return c.memory }
func (c client) IPAM() ipam.Interface                            { return nil }
func (c client) IPPools() clientv3.IPPoolInterface               { return poolClient{client: c} }
func (c client) IPReservations() clientv3.IPReservationInterface { return reservationClient{} }

func (p poolClient) List(context.Context, options.ListOptions) (*v3.IPPoolList, error) {
	time.Sleep(trip)
	return &v3.IPPoolList{Items: p.client.pools}, nil
}

func (reservationClient) List(context.Context, options.ListOptions) (*v3.IPReservationList, error) {
	time.Sleep(trip)
	return &v3.IPReservationList{Items: []v3.IPReservation{
		{Spec: v3.IPReservationSpec{ReservedCIDRs: []string{"192.168.0.64/32"}}},
	}}, nil
}

var (
	affine   = "host:a0"
	blockKey = model.BlockKey{CIDR: cnet.MustParseCIDR("192.168.0.64/30")}
)

// newClient has the host a0 with a block of four addresses, of which the first is reserved.
func newClient() client {
	m := &memory{pairs: map[string]*model.KVPair{}}
	m.put(model.ResourceKey{Kind: libapi.KindNode, Name: "a0"}, libapi.NewNode())
	m.put(model.IPAMConfigKey{}, &model.IPAMConfig{AutoAllocateBlocks: true})
	m.put(model.BlockAffinityKey{CIDR: blockKey.CIDR, Host: "a0", AffinityType: "host"},
		&model.BlockAffinity{State: model.StateConfirmed})
	m.put(blockKey, &model.AllocationBlock{
		CIDR: blockKey.CIDR, Affinity: &affine, Allocations: make([]*int, 4), Unallocated: []int{0, 1, 2, 3},
		SequenceNumberForAllocation: map[string]uint64{},
	})
	pool := v3.IPPool{Spec: v3.IPPoolSpec{
		CIDR: "192.168.0.0/16", BlockSize: 30, AllowedUses: []v3.IPPoolAllowedUse{v3.IPPoolAllowedUseWorkload},
	}}
	disabled := *pool.DeepCopy()
	disabled.Spec.CIDR, disabled.Spec.Disabled = "10.60.0.0/16", true
	return client{memory: m, pools: []v3.IPPool{pool, disabled}}
}

func assign(t *testing.T, c client, pool string) (string, error) {
	t.Helper()
	addresses, err := datastore.AddressesOf(c)
	if err != nil {
		t.Fatal(err)
	}
	handle := "docker-1"
	assigned, _, err := addresses.AutoAssign(t.Context(), ipam.AutoAssignArgs{
		Num4: 1, HandleID: &handle, Hostname: "a0", IPv4Pools: []cnet.IPNet{cnet.MustParseCIDR(pool)},
		IntendedUse: v3.IPPoolAllowedUseWorkload, Attrs: map[string]string{ipam.AttributeNode: "a0"},
	})
	if err != nil {
		return "", err
	}
	return assigned.IPs[0].IP.String(), nil
}

func TestAnAddressTakesTwoRoundsOfQuestionsAndTwoWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		address, err := assign(t, newClient(), "192.168.0.0/16")
		if err != nil || address != "192.168.0.65" {
			t.Errorf("got %q, %v", address, err)
		}
		if trips := time.Since(began) / trip; trips != 4 {
			t.Errorf("took %d round trips", trips)
		}
	})
}

func TestWhatSomebodyElseWroteMeanwhileIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient()
		c.memory.before = func() {
			block := clone(c.memory.pairs[blockKey.String()].Value.(*model.AllocationBlock))
			index := 0
			block.Allocations[1], block.Unallocated = &index, []int{0, 2, 3}
			block.Attributes = []model.AllocationAttribute{{}}
			c.memory.put(blockKey, block)
		}
		address, err := assign(t, c, "192.168.0.0/16")
		if err != nil || address != "192.168.0.66" {
			t.Errorf("got %q, %v", address, err)
		}
	})
}

func TestAPoolThatIsNotEnabledHasNoAddresses(t *testing.T) {
	for _, pool := range []string{"10.60.0.0/16", "10.70.0.0/16"} {
		synctest.Test(t, func(t *testing.T) {
			_, err := assign(t, newClient(), pool)
			if err == nil || !strings.Contains(err.Error(), "does not exist, or is not enabled") {
				t.Errorf("%s: got %v", pool, err)
			}
		})
	}
}

func TestWhatANodeHoldsTakesTwoQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient()
		if _, err := assign(t, c, "192.168.0.0/16"); err != nil {
			t.Fatal(err)
		}
		c.memory.put(model.IPAMHandleKey{HandleID: "docker-empty"}, &model.IPAMHandle{})
		c.memory.put(model.IPAMHandleKey{HandleID: "other-empty"}, &model.IPAMHandle{})
		blocks, err := datastore.BlocksOf(c)
		if err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		allocations, empty, err := blocks.Allocations(t.Context(), "a0", "docker-")
		if took := time.Since(started); err != nil || took != 2*trip {
			t.Errorf("took %s, %v", took, err)
		}
		if len(allocations) != 1 || allocations[0].Handle != "docker-1" {
			t.Errorf("allocations %v", allocations)
		}
		if _, found := empty["docker-empty"]; !found || len(empty) != 1 {
			t.Errorf("empty handles %v", empty)
		}
	})
}
