package datastore

import (
	"context"
	"slices"
	"sync"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	libapi "github.com/projectcalico/calico/libcalico-go/lib/apis/v3"
	backend "github.com/projectcalico/calico/libcalico-go/lib/backend/api"
	"github.com/projectcalico/calico/libcalico-go/lib/backend/model"
	"github.com/projectcalico/calico/libcalico-go/lib/clientv3"
	calicoerrors "github.com/projectcalico/calico/libcalico-go/lib/errors"
	"github.com/projectcalico/calico/libcalico-go/lib/ipam"
	cnet "github.com/projectcalico/calico/libcalico-go/lib/net"
	"github.com/projectcalico/calico/libcalico-go/lib/options"
)

// Asked is a question that has been put already, and is answered meanwhile.
type Asked[T any] struct {
	done   chan struct{}
	answer T
	err    error
}

// Ask puts a question.
func Ask[T any](question func() (T, error)) *Asked[T] {
	asked := &Asked[T]{done: make(chan struct{})}
	go func() {
		defer close(asked.done)
		asked.answer, asked.err = question()
	}()
	return asked
}

// Wait returns the answer, when it is there.
func (a *Asked[T]) Wait() (T, error) {
	<-a.done
	return a.answer, a.err
}

// Addresses is Calico's IPAM, which assigns the next free address with fewer round trips to etcd's quorum. The library asks
// for the pools, the reservations, the node, its blocks, each block and the settings one after the other. Here all is asked
// at once that does not need another's answer. Every assignment asks anew, so that nothing is older than the call itself,
// and what is written is written by the library, in its order.
type Addresses struct {
	ipam.Interface
	client  clientv3.Interface
	backend backend.Client
}

// AddressesOf takes the IPAM out of a client.
func AddressesOf(client clientv3.Interface) (Addresses, error) {
	blocks, err := BlocksOf(client)
	return Addresses{Interface: client.IPAM(), client: client, backend: blocks.backend}, err
}

// AutoAssign assigns the next free addresses; they are all of one IP version, and their handle is new.
func (a Addresses) AutoAssign(ctx context.Context, args ipam.AutoAssignArgs) (v4, v6 *ipam.IPAMAssignments, err error) {
	version := 4
	if args.Num6 > 0 {
		version = 6
	}
	// What was asked and is not wanted any more ends with the call.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	known := pools{Ask(func() (*v3.IPPoolList, error) { return a.client.IPPools().List(ctx, options.ListOptions{}) })}
	reserved := reservations{Ask(func() (*v3.IPReservationList, error) {
		return a.client.IPReservations().List(ctx, options.ListOptions{})
	})}
	ahead := &ahead{Client: a.backend, asked: map[string]*Asked[*model.KVPair]{}}
	ahead.ask(ctx, model.ResourceKey{Kind: libapi.KindNode, Name: args.Hostname})
	ahead.ask(ctx, model.IPAMConfigKey{})
	ahead.askForBlocks(ctx, model.BlockAffinityListOptions{
		Host: args.Hostname, AffinityType: string(ipam.AffinityTypeHost), IPVersion: version,
	}, slices.Concat(args.IPv4Pools, args.IPv6Pools))
	if args.HandleID != nil {
		key := model.IPAMHandleKey{HandleID: *args.HandleID}
		ahead.put(key, Ask(func() (*model.KVPair, error) {
			return nil, calicoerrors.ErrorResourceDoesNotExist{Identifier: key}
		}))
	}
	return ipam.NewIPAMClient(ahead, known, reserved).AutoAssign(ctx, args)
}

// ahead is a read-through client with keys that were read in advance. Each such result is used once; a later read of the same
// key goes to etcd, because whoever reads again wants to see what has changed.
type ahead struct {
	backend.Client
	owned   model.BlockAffinityListOptions
	blocks  *Asked[*model.KVPairList]
	guarded sync.Mutex
	asked   map[string]*Asked[*model.KVPair]
}

func (a *ahead) ask(ctx context.Context, key model.Key) {
	a.put(key, Ask(func() (*model.KVPair, error) { return a.Client.Get(ctx, key, "") }))
}

// askForBlocks asks which blocks the host has, and for those of them that are in the pools.
func (a *ahead) askForBlocks(ctx context.Context, owned model.BlockAffinityListOptions, within []cnet.IPNet) {
	a.owned = owned
	a.blocks = Ask(func() (*model.KVPairList, error) {
		list, err := a.Client.List(ctx, owned, "")
		if err != nil {
			return nil, err
		}
		for _, pair := range list.KVPairs {
			key, ok := pair.Key.(model.BlockAffinityKey)
			if !ok || !slices.ContainsFunc(within, func(pool cnet.IPNet) bool { return pool.Contains(key.CIDR.IP) }) {
				continue
			}
			a.put(key, Ask(func() (*model.KVPair, error) { return pair, nil }))
			a.ask(ctx, model.BlockKey{CIDR: key.CIDR})
		}
		return list, nil
	})
}

func (a *ahead) put(key model.Key, asked *Asked[*model.KVPair]) {
	a.guarded.Lock()
	defer a.guarded.Unlock()
	a.asked[key.String()] = asked
}

// Get returns the result that was read in advance, the first time, and else reads from etcd.
func (a *ahead) Get(ctx context.Context, key model.Key, revision string) (*model.KVPair, error) {
	a.guarded.Lock()
	asked := a.asked[key.String()]
	delete(a.asked, key.String())
	a.guarded.Unlock()
	if asked == nil || revision != "" {
		return a.Client.Get(ctx, key, revision)
	}
	return asked.Wait()
}

// List returns the host's block affinities that were read in advance, the first time, and else reads from etcd.
func (a *ahead) List(ctx context.Context, list model.ListInterface, revision string) (*model.KVPairList, error) {
	if list != model.ListInterface(a.owned) || a.blocks == nil || revision != "" {
		return a.Client.List(ctx, list, revision)
	}
	asked := a.blocks
	a.blocks = nil
	return asked.Wait()
}

// pools are the answer to which pools there are.
type pools struct{ *Asked[*v3.IPPoolList] }

// GetEnabledPools chooses as Calico's own accessor does (libcalico-go/lib/clientv3/client.go, filterIPPool).
func (p pools) GetEnabledPools(_ context.Context, version int) ([]v3.IPPool, error) {
	all, err := p.GetAllPools(context.Background())
	return slices.DeleteFunc(all, func(pool v3.IPPool) bool {
		_, cidr, err := cnet.ParseCIDR(pool.Spec.CIDR)
		return err != nil || cidr.Version() != version || pool.Spec.Disabled || !pool.DeletionTimestamp.IsZero()
	}), err
}

func (p pools) GetAllPools(context.Context) ([]v3.IPPool, error) {
	list, err := p.Wait()
	if err != nil {
		return nil, err
	}
	return slices.Clone(list.Items), nil
}

// reservations are the answer to which addresses are reserved.
type reservations struct{ *Asked[*v3.IPReservationList] }

func (r reservations) List(context.Context, options.ListOptions) (*v3.IPReservationList, error) {
	return r.Wait()
}
