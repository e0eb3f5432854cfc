package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	calico "github.com/projectcalico/calico/libcalico-go/lib/ipam"
	"github.com/projectcalico/calico/libcalico-go/lib/options"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/plugin"
)

// PoolOption and BlockSizeOption are the keys of --ipam-opt. For a dual-stack network the value is a list with a comma: IPv4
// first, then IPv6.
const (
	PoolOption      = "org.projectcalico.pool"
	BlockSizeOption = "org.projectcalico.blocksize"
)

// hostsAnnotation is the annotation of pools that this driver created. It lists the nodes with a network on the pool. The
// pool is deleted with the last of them.
const hostsAnnotation = "org.projectcalico.docker/hosts"

// Pools is the part of Calico's IPPool client that the driver uses.
type Pools interface {
	datastore.PoolLister
	Create(ctx context.Context, pool *v3.IPPool, opts options.SetOptions) (*v3.IPPool, error)
	Update(ctx context.Context, pool *v3.IPPool, opts options.SetOptions) (*v3.IPPool, error)
	Delete(ctx context.Context, name string, opts options.DeleteOptions) (*v3.IPPool, error)
}

// poolRequest is the requested pool. Fields that were not specified are zero.
type poolRequest struct {
	cidr      netip.Prefix
	name      string
	blockSize int
}

// blockSizes are the prefix lengths that Calico allows for the blocks of a pool.
var blockSizes = map[bool]struct{ largest, smallest int }{false: {20, 32}, true: {116, 128}}

// parsePoolRequest parses a RequestPool call. The engine passes all options in the call for each address family.
func parsePoolRequest(r plugin.RequestPoolRequest, pools datastore.Pools) (poolRequest, error) {
	var p poolRequest
	v6 := r.V6
	if r.Pool != "" {
		cidr, err := datastore.ParseCIDR(r.Pool)
		if err != nil {
			return p, err
		}
		p.cidr, v6 = cidr, cidr.Addr().Is6()
	}
	for _, option := range slices.Sorted(maps.Keys(r.Options)) {
		values := strings.Split(r.Options[option], ",")
		switch option {
		case PoolOption:
			for i, name := range values {
				// The name of a new pool is for the family of its position in the list.
				nameV6 := i > 0
				if pool, err := pools.WithName(name); err == nil {
					nameV6 = pool.CIDR.Addr().Is6()
				} else if len(values) == 1 {
					nameV6 = v6
				}
				if nameV6 == v6 {
					p.name = name
				}
			}
		case BlockSizeOption:
			for _, text := range values {
				number, err := strconv.Atoi(text)
				if err != nil || !slices.ContainsFunc([]bool{false, true}, func(v6 bool) bool { return isBlockSize(v6, number) }) {
					return p, fmt.Errorf("--ipam-opt %s=%s: a block size is a prefix length from /20 to /32, for IPv6 from "+
						"/116 to /128", option, text)
				}
				if isBlockSize(v6, number) {
					p.blockSize = number
				}
			}
		default:
			return p, fmt.Errorf("--ipam-opt %s: not an option of Calico's IPAM driver; the options are %s and %s", option,
				PoolOption, BlockSizeOption)
		}
	}
	return p, nil
}

func isBlockSize(v6 bool, blockSize int) bool {
	return blockSizes[v6].largest <= blockSize && blockSize <= blockSizes[v6].smallest
}

// find returns the requested pool of the enabled pools. If create is true, it has to be created.
func (p poolRequest) find(pools datastore.Pools) (pool datastore.Pool, create bool, err error) {
	switch {
	case p.cidr.IsValid():
		pool, err = pools.WithCIDR(p.cidr.String())
		create = err != nil && p.blockSize > 0
		if err == nil && p.name != "" && p.name != pool.Name {
			err = fmt.Errorf("--ipam-opt %s=%s: the pool of --subnet %s is %s", PoolOption, p.name, p.cidr, pool.Name)
		}
	case p.name != "":
		pool, err = pools.WithName(p.name)
	default:
		err = fmt.Errorf("a Calico network needs --subnet with the CIDR of its pool, or --ipam-opt %s=NAME; %s",
			PoolOption, pools.Describe())
	}
	return pool, create, err
}

var (
	errNoPool       = errors.New("is not an enabled Calico IPPool")
	errBeingRemoved = errors.New("is being removed")
)

// removalPoll is the pause between reads of a pool that is being removed. Calico's client removes a pool in a second or two.
const removalPoll = 200 * time.Millisecond

// findOrCreatePool finds or creates the pool of a new network. It waits while the pool is being removed.
func (d *Driver) findOrCreatePool(ctx context.Context, r plugin.RequestPoolRequest) (datastore.Pool, error) {
	for deadline := time.Now().Add(d.StartRetry.Timeout); ; time.Sleep(removalPoll) {
		pool, err := d.tryFindOrCreatePool(ctx, r)
		if !errors.Is(err, errBeingRemoved) || time.Now().After(deadline) {
			return pool, err
		}
		// This host may have been interrupted while it removed the pool.
		d.RequestReconcile()
	}
}

// tryFindOrCreatePool finds or creates the pool, registers this host and counts the request.
func (d *Driver) tryFindOrCreatePool(ctx context.Context, r plugin.RequestPoolRequest) (datastore.Pool, error) {
	d.poolsMutex.Lock()
	defer d.poolsMutex.Unlock()
	var list *v3.IPPoolList
	err := d.StartRetry.Do(ctx, "list Calico's IP pools", func(ctx context.Context) (err error) {
		list, err = d.Pools.List(ctx, options.ListOptions{})
		return err
	})
	if err != nil {
		return datastore.Pool{}, err
	}
	pools := datastore.Enabled(list)
	request, err := parsePoolRequest(r, pools)
	if err != nil {
		return datastore.Pool{}, err
	}
	pool, create, err := request.find(pools)
	if create {
		if err := checkCIDRNotBeingRemoved(list, request.cidr); err != nil {
			return pool, err
		}
		pool, err = d.createPool(ctx, request)
	}
	if err != nil {
		return pool, err
	}
	if err := d.registerHost(ctx, pool, request); err != nil {
		return pool, err
	}
	return pool, d.countRequest(pool, request)
}

// checkCIDRNotBeingRemoved returns an error if a pool with the CIDR is being removed.
func checkCIDRNotBeingRemoved(list *v3.IPPoolList, cidr netip.Prefix) error {
	for i := range list.Items {
		if datastore.CIDR(list.Items[i]) == cidr {
			return checkNotBeingRemoved(&list.Items[i])
		}
	}
	return nil
}

// checkNotBeingRemoved returns an error if the pool was created by this driver and is disabled, because Calico's client
// disables a pool before it deletes it.
func checkNotBeingRemoved(pool *v3.IPPool) error {
	registered, ours := hostsOf(pool)
	if !ours || !pool.Spec.Disabled {
		return nil
	}
	return fmt.Errorf("pool %s %s %w by host %s: if the removal does not end, run calicoctl delete "+
		"ippool %s", pool.Name, pool.Spec.CIDR, errBeingRemoved, strings.Join(registered, ","), pool.Name)
}

// registerHost adds this host to the pool's list of hosts, if this driver created the pool.
func (d *Driver) registerHost(ctx context.Context, pool datastore.Pool, request poolRequest) error {
	return d.StartRetry.Do(ctx, "register this host with pool "+pool.String(), func(ctx context.Context) error {
		return d.updateHosts(ctx, pool.CIDR, func(stored *v3.IPPool, all []string) ([]string, error) {
			if err := checkNotBeingRemoved(stored); err != nil {
				return all, err
			}
			if request.blockSize > 0 && stored.Spec.BlockSize != request.blockSize {
				return all, fmt.Errorf("--ipam-opt %s=%d: pool %s exists and has blocks of /%d, which cannot be changed",
					BlockSizeOption, request.blockSize, pool, stored.Spec.BlockSize)
			}
			if !slices.Contains(all, d.Node) {
				all = append(all, d.Node)
			}
			return all, nil
		})
	})
}

// createPool creates a pool without encapsulation and with natOutgoing. The same command on every host creates one pool,
// because the name is derived from the CIDR.
func (d *Driver) createPool(ctx context.Context, request poolRequest) (datastore.Pool, error) {
	pool := v3.NewIPPool()
	pool.Name = request.name
	if pool.Name == "" {
		pool.Name = "docker" + strings.Map(func(letter rune) rune {
			if strings.ContainsRune(".:/", letter) {
				return '-'
			}
			return letter
		}, "-"+request.cidr.Addr().StringExpanded()+"-"+strconv.Itoa(request.cidr.Bits()))
	}
	pool.Annotations = map[string]string{hostsAnnotation: d.Node}
	pool.Spec = v3.IPPoolSpec{CIDR: request.cidr.String(), BlockSize: request.blockSize, NATOutgoing: true}
	err := d.StartRetry.Do(ctx, "create IPPool "+pool.Name+" "+pool.Spec.CIDR, func(ctx context.Context) error {
		_, err := d.Pools.Create(ctx, pool, options.SetOptions{})
		if datastore.IsAlreadyExists(err) {
			// Another host has created it. If the existing pool has another CIDR, registerHost fails.
			return nil
		}
		return err
	})
	return datastore.Pool{Name: pool.Name, CIDR: request.cidr}, err
}

// updateAttempts limits the retries of an update after conflicts with other hosts.
const updateAttempts = 5

// updateHosts updates the pool's list of hosts, and deletes the pool if the list is empty. It calls edit for every pool, but
// changes only pools that this driver created.
func (d *Driver) updateHosts(
	ctx context.Context, cidr netip.Prefix, edit func(*v3.IPPool, []string) ([]string, error),
) error {
	var err error
	for range updateAttempts {
		var pool *v3.IPPool
		if pool, err = d.poolWithCIDR(ctx, cidr); err != nil {
			return err
		}
		before, ours := hostsOf(pool)
		after, failed := edit(pool, slices.Clone(before))
		if failed != nil || !ours || slices.Equal(before, after) {
			return failed
		}
		if len(after) == 0 {
			err = d.deletePool(ctx, pool)
		} else {
			slices.Sort(after)
			pool.Annotations[hostsAnnotation] = strings.Join(after, ",")
			_, err = d.Pools.Update(ctx, pool, options.SetOptions{})
		}
		if !datastore.IsConflict(err) {
			return err
		}
	}
	return err
}

func (d *Driver) poolWithCIDR(ctx context.Context, cidr netip.Prefix) (*v3.IPPool, error) {
	list, err := d.Pools.List(ctx, options.ListOptions{})
	if err != nil {
		return nil, err
	}
	for i := range list.Items {
		if datastore.CIDR(list.Items[i]) == cidr {
			return &list.Items[i], nil
		}
	}
	return nil, fmt.Errorf("%s %w", cidr, errNoPool)
}

// hostsOf returns the nodes that are registered with the pool, and whether this driver created the pool.
func hostsOf(pool *v3.IPPool) ([]string, bool) {
	list, ours := pool.Annotations[hostsAnnotation]
	return strings.FieldsFunc(list, func(letter rune) bool { return letter == ',' }), ours
}

// deletePool deletes a pool that this driver created. It returns ErrInUse if an address of the pool is allocated.
func (d *Driver) deletePool(ctx context.Context, pool *v3.IPPool) error {
	use, err := d.Addresses.GetUtilization(ctx, calico.GetUtilizationArgs{Pools: []string{pool.Name}})
	if err != nil {
		return err
	}
	for _, each := range use {
		for _, block := range each.Blocks {
			if block.Available < block.Capacity {
				return fmt.Errorf("%w: addresses of block %s are allocated", ErrInUse, block.CIDR)
			}
		}
	}
	_, err = d.Pools.Delete(ctx, pool.Name, options.DeleteOptions{ResourceVersion: pool.ResourceVersion})
	if datastore.IsNotFound(err) {
		return nil
	}
	return err
}

// UnregisterHost removes this host from the pool's list of hosts. If it was the last one, the pool is deleted. It returns
// ErrInUse if a network of this host uses the pool or is being created on it. A missing pool is no error.
func (d *Driver) UnregisterHost(ctx context.Context, cidr netip.Prefix) error {
	d.poolsMutex.Lock()
	defer d.poolsMutex.Unlock()
	if d.Records.UsesPool(cidr) || d.requests.count(cidr) > 0 {
		return fmt.Errorf("%w: a network of this host uses pool %s", ErrInUse, cidr)
	}
	return d.CleanupRetry.Do(ctx, "unregister this host from pool "+cidr.String(), func(ctx context.Context) error {
		err := d.updateHosts(ctx, cidr, func(_ *v3.IPPool, all []string) ([]string, error) {
			return slices.DeleteFunc(all, func(each string) bool { return each == d.Node }), nil
		})
		if errors.Is(err, errNoPool) {
			return nil
		}
		return err
	})
}

// RegisteredPools returns the pools with which this host is registered. They include disabled pools, whose removal was
// interrupted and has to be repeated.
func (d *Driver) RegisteredPools(ctx context.Context) ([]netip.Prefix, error) {
	list, err := d.Pools.List(ctx, options.ListOptions{})
	if err != nil {
		return nil, err
	}
	var registered []netip.Prefix
	for i := range list.Items {
		if all, _ := hostsOf(&list.Items[i]); slices.Contains(all, d.Node) {
			registered = append(registered, datastore.CIDR(list.Items[i]))
		}
	}
	return registered, nil
}
