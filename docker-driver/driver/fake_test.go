package driver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	libapi "github.com/projectcalico/calico/libcalico-go/lib/apis/v3"
	calicoerrors "github.com/projectcalico/calico/libcalico-go/lib/errors"
	calico "github.com/projectcalico/calico/libcalico-go/lib/ipam"
	"github.com/projectcalico/calico/libcalico-go/lib/names"
	cnet "github.com/projectcalico/calico/libcalico-go/lib/net"
	"github.com/projectcalico/calico/libcalico-go/lib/options"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/engine"
	"calico-lab/docker-driver/link"
	"calico-lab/docker-driver/trigger"
)

// fake is a datastore, a host and an engine in memory. It returns the same errors as Calico's library.
type fake struct {
	mutex     sync.Mutex
	node      string
	pools     []v3.IPPool
	profiles  map[string]*v3.Profile
	endpoints map[string]*libapi.WorkloadEndpoint
	// endpointVersion is the version of the endpoint that was stored last.
	endpointVersion int
	allocations     map[netip.Addr]datastore.Allocation
	// emptyHandles are revisions by ID.
	emptyHandles map[string]string
	links        map[string]link.Pair
	// docker are the engine's endpoints, networks its networks. docker is nil if the engine does not run.
	docker   map[string]engine.Endpoint
	networks []string
	// onEngineList is called after the engine's endpoints were listed.
	onEngineList func()
	// onLinkRemove is called when an interface is removed.
	onLinkRemove func()
	// conflicts is the number of pool updates that fail because of an update by another host.
	conflicts int
	// poolLists is the number of times that the pools were listed.
	poolLists atomic.Int32
	// onPoolList is called after the pools were listed.
	onPoolList func()
	// onPoolCreate is called after a pool was created.
	onPoolCreate func()
	// failPoolDelete makes the deletion of a pool fail after the pool is disabled.
	failPoolDelete bool
	// etcdDown makes every request to the datastore fail as without a quorum.
	etcdDown bool
	// linkError and ruleError fail the next step of that kind.
	linkError, ruleError error
	// relabel is requested when labels have to be set again.
	relabel trigger.Trigger
	// rules is the last input of each iptables-restore.
	rules map[string]string
	// portsInUse are ports of the host, as protocol:address:port.
	portsInUse []string
}

func newFake() *fake {
	return &fake{
		node: "a0", profiles: map[string]*v3.Profile{}, endpoints: map[string]*libapi.WorkloadEndpoint{},
		allocations: map[netip.Addr]datastore.Allocation{}, links: map[string]link.Pair{},
		docker: map[string]engine.Endpoint{}, rules: map[string]string{}, relabel: trigger.New(),
	}
}

var errEtcdDown = calicoerrors.ErrorDatastoreError{Err: context.DeadlineExceeded}

func (f *fake) lock() (func(), error) {
	f.mutex.Lock()
	if f.etcdDown {
		f.mutex.Unlock()
		return func() {}, errEtcdDown
	}
	return f.mutex.Unlock, nil
}

type fakePools struct{ *fake }

func (f fakePools) List(context.Context, options.ListOptions) (*v3.IPPoolList, error) {
	f.poolLists.Add(1)
	unlock, err := f.lock()
	defer unlock()
	defer func() {
		if f.onPoolList != nil {
			f.onPoolList()
		}
	}()
	list := &v3.IPPoolList{}
	for i := range f.pools {
		list.Items = append(list.Items, *f.pools[i].DeepCopy())
	}
	return list, err
}

func (f fakePools) Create(_ context.Context, p *v3.IPPool, _ options.SetOptions) (*v3.IPPool, error) {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(f.pools, func(each v3.IPPool) bool { return each.Name == p.Name }) {
		return nil, calicoerrors.ErrorResourceAlreadyExists{Identifier: p.Name}
	}
	f.pools = append(f.pools, *p.DeepCopy())
	if f.onPoolCreate != nil {
		f.onPoolCreate()
	}
	return p, nil
}

func (f fakePools) Update(_ context.Context, p *v3.IPPool, _ options.SetOptions) (*v3.IPPool, error) {
	unlock, err := f.lock()
	defer unlock()
	if err == nil && f.conflicts > 0 {
		f.conflicts--
		return nil, calicoerrors.ErrorResourceUpdateConflict{Identifier: p.Name}
	}
	for i := range f.pools {
		if f.pools[i].Name == p.Name {
			f.pools[i] = *p.DeepCopy()
		}
	}
	return p, err
}

func (f fakePools) Delete(_ context.Context, name string, _ options.DeleteOptions) (*v3.IPPool, error) {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return nil, err
	}
	// Calico's client first disables the pool and deletes it half a second later.
	for i := range f.pools {
		if f.pools[i].Name == name {
			f.pools[i].Spec.Disabled = true
		}
	}
	if f.failPoolDelete {
		return nil, errEtcdDown
	}
	f.pools = slices.DeleteFunc(f.pools, func(each v3.IPPool) bool { return each.Name == name })
	return nil, nil
}

type fakeProfiles struct{ *fake }

func (f fakeProfiles) Create(_ context.Context, p *v3.Profile, _ options.SetOptions) (*v3.Profile, error) {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return nil, err
	}
	if _, found := f.profiles[p.Name]; found {
		return nil, calicoerrors.ErrorResourceAlreadyExists{Identifier: p.Name}
	}
	f.profiles[p.Name] = p
	return p, nil
}

func (f fakeProfiles) Get(_ context.Context, name string, _ options.GetOptions) (*v3.Profile, error) {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return nil, err
	}
	if p, found := f.profiles[name]; found {
		return p, nil
	}
	return nil, calicoerrors.ErrorResourceDoesNotExist{Identifier: name}
}

func (f fakeProfiles) Delete(_ context.Context, name string, _ options.DeleteOptions) (*v3.Profile, error) {
	unlock, err := f.lock()
	defer unlock()
	delete(f.profiles, name)
	return nil, err
}

type fakeEndpoints struct{ *fake }

func (f fakeEndpoints) Create(
	_ context.Context, e *libapi.WorkloadEndpoint, _ options.SetOptions,
) (*libapi.WorkloadEndpoint, error) {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return nil, err
	}
	name, err := names.IdentifiersForV3WorkloadEndpoint(e).CalculateWorkloadEndpointName(false)
	if err != nil {
		return nil, err
	}
	if _, found := f.endpoints[name]; found {
		return nil, calicoerrors.ErrorResourceAlreadyExists{Identifier: name}
	}
	stored := e.DeepCopy()
	stored.Name = name
	f.store(stored)
	return stored, nil
}

func (f fakeEndpoints) Update(
	_ context.Context, e *libapi.WorkloadEndpoint, _ options.SetOptions,
) (*libapi.WorkloadEndpoint, error) {
	unlock, err := f.lock()
	defer unlock()
	if err == nil {
		err = f.checkVersion(e.Name, e.ResourceVersion)
	}
	if err == nil {
		f.store(e.DeepCopy())
	}
	return e, err
}

func (f fakeEndpoints) Delete(
	_ context.Context, _, name string, o options.DeleteOptions,
) (*libapi.WorkloadEndpoint, error) {
	unlock, err := f.lock()
	defer unlock()
	if err == nil {
		err = f.checkVersion(name, o.ResourceVersion)
	}
	if err == nil {
		delete(f.endpoints, name)
	}
	return nil, err
}

// checkVersion returns an error if the endpoint does not exist or has another version. The driver passes a version in each
// change.
func (f fakeEndpoints) checkVersion(name, version string) error {
	stored, found := f.endpoints[name]
	switch {
	case !found:
		return calicoerrors.ErrorResourceDoesNotExist{Identifier: name}
	case stored.ResourceVersion != version:
		return calicoerrors.ErrorResourceUpdateConflict{Identifier: name}
	}
	return nil
}

// store stores the endpoint with a new version.
func (f fakeEndpoints) store(e *libapi.WorkloadEndpoint) {
	f.endpointVersion++
	e.ResourceVersion = strconv.Itoa(f.endpointVersion)
	f.endpoints[e.Name] = e
}

func (f fakeEndpoints) Get(_ context.Context, _, name string, _ options.GetOptions) (*libapi.WorkloadEndpoint, error) {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return nil, err
	}
	if e, found := f.endpoints[name]; found {
		return e.DeepCopy(), nil
	}
	return nil, calicoerrors.ErrorResourceDoesNotExist{Identifier: name}
}

func (f fakeEndpoints) List(_ context.Context, o options.ListOptions) (*libapi.WorkloadEndpointList, error) {
	unlock, err := f.lock()
	defer unlock()
	list := &libapi.WorkloadEndpointList{}
	for _, name := range slices.Sorted(maps.Keys(f.endpoints)) {
		if !o.Prefix || strings.HasPrefix(name, o.Name) {
			list.Items = append(list.Items, *f.endpoints[name].DeepCopy())
		}
	}
	return list, err
}

type fakeAddresses struct{ *fake }

func (f fakeAddresses) AssignIP(_ context.Context, args calico.AssignIPArgs) error {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return err
	}
	address := netip.MustParseAddr(args.IP.String())
	if _, found := f.allocations[address]; found {
		return calicoerrors.ErrorResourceAlreadyExists{Identifier: address}
	}
	f.allocate(address, *args.HandleID, args.Attrs[calico.AttributeNode])
	return nil
}

func (f fakeAddresses) allocate(address netip.Addr, handle, node string) {
	f.allocations[address] = datastore.Allocation{Address: address, Handle: handle, Node: node}
}

func (f fakeAddresses) AutoAssign(
	_ context.Context, args calico.AutoAssignArgs,
) (*calico.IPAMAssignments, *calico.IPAMAssignments, error) {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return nil, nil, err
	}
	if args.IntendedUse != v3.IPPoolAllowedUseWorkload || args.HandleID == nil {
		return nil, nil, errors.New("an allocation without an intended use or a handle")
	}
	answer := &calico.IPAMAssignments{}
	cidrs := slices.Concat(args.IPv4Pools, args.IPv6Pools)
	prefix := netip.MustParsePrefix(cidrs[0].String())
	if !slices.ContainsFunc(f.pools, func(pool v3.IPPool) bool {
		return pool.Spec.CIDR == prefix.String() && !pool.Spec.Disabled
	}) {
		return nil, nil, fmt.Errorf("the given pool (%s) does not exist, or is not enabled", prefix)
	}
	for address := prefix.Addr(); prefix.Contains(address); address = address.Next() {
		if _, found := f.allocations[address]; found {
			continue
		}
		f.allocate(address, *args.HandleID, args.Attrs[calico.AttributeNode])
		answer.IPs = []cnet.IPNet{cnet.MustParseNetwork(netip.PrefixFrom(address, address.BitLen()).String())}
		break
	}
	if args.Num6 > 0 {
		return nil, answer, nil
	}
	return answer, nil, nil
}

func (f fakeAddresses) ReleaseIPs(
	_ context.Context, ips ...calico.ReleaseOptions,
) ([]cnet.IP, []calico.ReleaseOptions, error) {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return nil, nil, err
	}
	for _, each := range ips {
		address := netip.MustParseAddr(each.Address)
		if f.allocations[address].Handle != each.Handle {
			return nil, nil, calicoerrors.ErrorResourceUpdateConflict{Identifier: each.Address}
		}
		delete(f.allocations, address)
	}
	return nil, nil, nil
}

func (f fakeAddresses) GetAssignmentAttributes(_ context.Context, ip cnet.IP) (map[string]string, *string, error) {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return nil, nil, err
	}
	allocation, found := f.allocations[netip.MustParseAddr(ip.String())]
	if !found {
		return nil, nil, calicoerrors.ErrorResourceDoesNotExist{Identifier: ip.String()}
	}
	return map[string]string{calico.AttributeNode: allocation.Node}, &allocation.Handle, nil
}

func (f fakeAddresses) IPsByHandle(_ context.Context, handle string) ([]cnet.IP, error) {
	unlock, err := f.lock()
	defer unlock()
	if _, remaining := f.emptyHandles[handle]; remaining {
		return nil, err
	}
	return nil, calicoerrors.ErrorResourceDoesNotExist{Identifier: handle}
}

func (f fakeAddresses) GetUtilization(
	_ context.Context, args calico.GetUtilizationArgs,
) ([]*calico.PoolUtilization, error) {
	unlock, err := f.lock()
	defer unlock()
	used := &calico.PoolUtilization{}
	for _, pool := range f.pools {
		if slices.Contains(args.Pools, pool.Name) {
			block := calico.BlockUtilization{Capacity: len(f.allocations), Available: len(f.allocations)}
			for address := range f.allocations {
				if datastore.CIDR(pool).Contains(address) {
					block.Available--
				}
			}
			used.Blocks = append(used.Blocks, block)
		}
	}
	return []*calico.PoolUtilization{used}, err
}

func (f *fake) Allocations(
	_ context.Context, node, _ string,
) ([]datastore.Allocation, map[string]string, error) {
	unlock, err := f.lock()
	defer unlock()
	var own []datastore.Allocation
	for _, allocation := range f.allocations {
		if allocation.Node == node {
			own = append(own, allocation)
		}
	}
	return own, maps.Clone(f.emptyHandles), err
}

func (f *fake) RemoveHandle(_ context.Context, id, _ string) error {
	unlock, err := f.lock()
	defer unlock()
	delete(f.emptyHandles, id)
	return err
}

// fakeLinks are the host's interfaces.
type fakeLinks struct{ *fake }

func (f fakeLinks) Create(pair link.Pair) error {
	if f.linkError != nil {
		return f.linkError
	}
	f.links[pair.Host] = pair
	return nil
}

func (f fakeLinks) Remove(name string) error {
	delete(f.links, name)
	if f.onLinkRemove != nil {
		f.onLinkRemove()
	}
	return nil
}

func (f fakeLinks) Exists(name string) bool {
	_, found := f.links[name]
	return found
}

func (f fakeLinks) List() (map[string]string, error) {
	owned := map[string]string{}
	for name, pair := range f.links {
		owned[pair.EndpointID] = name
	}
	return owned, nil
}

func (f *fake) run(_ context.Context, input, program string, arguments ...string) error {
	switch {
	case strings.HasSuffix(program, "-restore"):
		if f.ruleError != nil {
			return f.ruleError
		}
		f.rules[strings.TrimSuffix(program, "-restore")] = input
	case slices.Contains(arguments, "-L") && f.rules[program] == "":
		return errors.New("no such chain")
	case slices.Contains(arguments, "-X"):
		delete(f.rules, program)
	}
	return nil
}

type closer func()

func (c closer) Close() error {
	c()
	return nil
}

func (f *fake) reserve(protocol string, at netip.AddrPort) (io.Closer, error) {
	name := protocol + ":" + at.String()
	if slices.Contains(f.portsInUse, name) {
		return nil, syscall.EADDRINUSE
	}
	f.portsInUse = append(f.portsInUse, name)
	return closer(func() {
		f.portsInUse = slices.DeleteFunc(f.portsInUse, func(each string) bool { return each == name })
	}), nil
}

// Endpoints returns the engine's endpoints.
func (f *fake) Endpoints(context.Context, string) (map[string]engine.Endpoint, []string, error) {
	if f.docker == nil {
		return nil, nil, errors.New("the engine does not run")
	}
	endpoints, networks := maps.Clone(f.docker), slices.Clone(f.networks)
	if f.onEngineList != nil {
		f.onEngineList()
	}
	return endpoints, networks, nil
}
