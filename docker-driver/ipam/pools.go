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

// PoolOption and BlockSizeOption are what a person gives with --ipam-opt: of a dual-stack network one for each family,
// IPv4 first, with a comma between them.
const (
	PoolOption      = "org.projectcalico.pool"
	BlockSizeOption = "org.projectcalico.blocksize"
)

// hosts is the annotation of the pools that this driver made: the nodes that have a network on it. A pool goes with
// the last of them.
const hosts = "org.projectcalico.docker/hosts"

// Pools is the part of Calico's IPPool client that is needed.
type Pools interface {
	datastore.PoolLister
	Create(ctx context.Context, pool *v3.IPPool, opts options.SetOptions) (*v3.IPPool, error)
	Update(ctx context.Context, pool *v3.IPPool, opts options.SetOptions) (*v3.IPPool, error)
	Delete(ctx context.Context, name string, opts options.DeleteOptions) (*v3.IPPool, error)
}

// wish is the pool that a person asked for, as far as they said.
type wish struct {
	cidr      netip.Prefix
	name      string
	blockSize int
}

// blockSizes are the prefix lengths that Calico allows for the blocks of a pool.
var blockSizes = map[bool]struct{ largest, smallest int }{false: {20, 32}, true: {116, 128}}

// wished reads the request. The engine gives all options for each of the network's families.
func wished(r plugin.RequestPoolRequest, pools datastore.Pools) (wish, error) {
	var w wish
	v6 := r.V6
	if r.Pool != "" {
		cidr, err := datastore.ParseCIDR(r.Pool)
		if err != nil {
			return w, err
		}
		w.cidr, v6 = cidr, cidr.Addr().Is6()
	}
	for _, option := range slices.Sorted(maps.Keys(r.Options)) {
		values := strings.Split(r.Options[option], ",")
		switch option {
		case PoolOption:
			for place, name := range values {
				// The name of a new pool counts for the family of its place.
				of6 := place > 0
				if pool, err := pools.Named(name); err == nil {
					of6 = pool.CIDR.Addr().Is6()
				} else if len(values) == 1 {
					of6 = v6
				}
				if of6 == v6 {
					w.name = name
				}
			}
		case BlockSizeOption:
			for _, text := range values {
				number, err := strconv.Atoi(text)
				if err != nil || !slices.ContainsFunc([]bool{false, true}, func(v6 bool) bool { return allowed(v6, number) }) {
					return w, fmt.Errorf("--ipam-opt %s=%s: a block size is a prefix length from /20 to /32, for IPv6 from "+
						"/116 to /128", option, text)
				}
				if allowed(v6, number) {
					w.blockSize = number
				}
			}
		default:
			return w, fmt.Errorf("--ipam-opt %s: not an option of Calico's addresses; there are %s and %s", option,
				PoolOption, BlockSizeOption)
		}
	}
	return w, nil
}

func allowed(v6 bool, blockSize int) bool {
	return blockSizes[v6].largest <= blockSize && blockSize <= blockSizes[v6].smallest
}

// find returns the enabled pool that is wished for; absent when it has to be made.
func (w wish) find(pools datastore.Pools) (pool datastore.Pool, absent bool, err error) {
	switch {
	case w.cidr.IsValid():
		pool, err = pools.WithCIDR(w.cidr.String())
		absent = err != nil && w.blockSize > 0
		if err == nil && w.name != "" && w.name != pool.Name {
			err = fmt.Errorf("--ipam-opt %s=%s: the pool of --subnet %s is %s", PoolOption, w.name, w.cidr, pool.Name)
		}
	case w.name != "":
		pool, err = pools.Named(w.name)
	default:
		err = fmt.Errorf("a Calico network needs --subnet with the CIDR of its pool, or --ipam-opt %s=NAME; %s",
			PoolOption, pools.Choice())
	}
	return pool, absent, err
}

var (
	errNoPool  = errors.New("is not an enabled Calico IPPool")
	errLeaving = errors.New("is being removed")
)

// pause lies between looks at a pool that is being removed, which takes Calico's client a second or two.
const pause = 200 * time.Millisecond

// pool finds the pool for a new network or makes it, and waits for one that is being removed at the moment.
func (d *Driver) pool(ctx context.Context, r plugin.RequestPoolRequest) (datastore.Pool, error) {
	for deadline := time.Now().Add(d.Take.Limit); ; time.Sleep(pause) {
		pool, err := d.poolNow(ctx, r)
		if !errors.Is(err, errLeaving) || time.Now().After(deadline) {
			return pool, err
		}
		// It may be this host that was interrupted.
		d.Doubt()
	}
}

// poolNow finds the pool or makes it, and notes that a network of this host is coming.
func (d *Driver) poolNow(ctx context.Context, r plugin.RequestPoolRequest) (datastore.Pool, error) {
	d.noting.Lock()
	defer d.noting.Unlock()
	var list *v3.IPPoolList
	err := d.Take.Do(ctx, "list Calico's IP pools", func(ctx context.Context) (err error) {
		list, err = d.Pools.List(ctx, options.ListOptions{})
		return err
	})
	if err != nil {
		return datastore.Pool{}, err
	}
	pools := datastore.Enabled(list)
	w, err := wished(r, pools)
	if err != nil {
		return datastore.Pool{}, err
	}
	pool, absent, err := w.find(pools)
	if absent {
		if err := leaving(list, w.cidr); err != nil {
			return pool, err
		}
		pool, err = d.makePool(ctx, w)
	}
	if err != nil {
		return pool, err
	}
	if err := d.notePool(ctx, pool, w); err != nil {
		return pool, err
	}
	return pool, d.promise(pool, w)
}

// leaving tells of a pool of this CIDR that a host has begun to remove.
func leaving(list *v3.IPPoolList, cidr netip.Prefix) error {
	for i := range list.Items {
		if datastore.CIDR(list.Items[i]) == cidr {
			return disabled(&list.Items[i])
		}
	}
	return nil
}

// disabled tells why a pool that this driver made cannot be used. Calico's client disables pools before it removes them.
func disabled(pool *v3.IPPool) error {
	on, ours := hostsOf(pool)
	if !ours || !pool.Spec.Disabled {
		return nil
	}
	return fmt.Errorf("pool %s %s %w by host %s: if that does not come to an end, remove it with calicoctl delete "+
		"ippool %s", pool.Name, pool.Spec.CIDR, errLeaving, strings.Join(on, ","), pool.Name)
}

// notePool notes on a pool that this driver made that this host uses it.
func (d *Driver) notePool(ctx context.Context, pool datastore.Pool, w wish) error {
	return d.Take.Do(ctx, "note that this host uses pool "+pool.String(), func(ctx context.Context) error {
		return d.changeHosts(ctx, pool.CIDR, func(stored *v3.IPPool, all []string) ([]string, error) {
			if err := disabled(stored); err != nil {
				return all, err
			}
			if w.blockSize > 0 && stored.Spec.BlockSize != w.blockSize {
				return all, fmt.Errorf("--ipam-opt %s=%d: pool %s is there and has blocks of /%d, which cannot be changed",
					BlockSizeOption, w.blockSize, pool, stored.Spec.BlockSize)
			}
			if !slices.Contains(all, d.Node) {
				all = append(all, d.Node)
			}
			return all, nil
		})
	})
}

// makePool makes a pool with the settings that the lab's own has: no encapsulation, and the host's address for what
// leaves the pools. The same command on every host makes one pool, because its name follows from its CIDR.
func (d *Driver) makePool(ctx context.Context, w wish) (datastore.Pool, error) {
	pool := v3.NewIPPool()
	pool.Name = w.name
	if pool.Name == "" {
		pool.Name = "docker" + strings.Map(func(letter rune) rune {
			if strings.ContainsRune(".:/", letter) {
				return '-'
			}
			return letter
		}, "-"+w.cidr.Addr().StringExpanded()+"-"+strconv.Itoa(w.cidr.Bits()))
	}
	pool.Annotations = map[string]string{hosts: d.Node}
	pool.Spec = v3.IPPoolSpec{CIDR: w.cidr.String(), BlockSize: w.blockSize, NATOutgoing: true}
	err := d.Take.Do(ctx, "make IPPool "+pool.Name+" "+w.cidr.String(), func(ctx context.Context) error {
		_, err := d.Pools.Create(ctx, pool, options.SetOptions{})
		if datastore.Present(err) {
			// Made by another host in the meantime, or else not found under this CIDR in the next step.
			return nil
		}
		return err
	})
	return datastore.Pool{Name: pool.Name, CIDR: w.cidr}, err
}

// rounds is how often a change is tried again when another host was quicker.
const rounds = 5

// changeHosts edits the list of hosts of the pool if this driver made it; another pool is shown to edit and stays.
func (d *Driver) changeHosts(
	ctx context.Context, cidr netip.Prefix, edit func(*v3.IPPool, []string) ([]string, error),
) error {
	var err error
	for range rounds {
		var pool *v3.IPPool
		if pool, err = d.stored(ctx, cidr); err != nil {
			return err
		}
		before, ours := hostsOf(pool)
		after, refusal := edit(pool, slices.Clone(before))
		if refusal != nil || !ours || slices.Equal(before, after) {
			return refusal
		}
		if len(after) == 0 {
			err = d.dropPool(ctx, pool)
		} else {
			slices.Sort(after)
			pool.Annotations[hosts] = strings.Join(after, ",")
			_, err = d.Pools.Update(ctx, pool, options.SetOptions{})
		}
		if !datastore.Conflict(err) {
			return err
		}
	}
	return err
}

func (d *Driver) stored(ctx context.Context, cidr netip.Prefix) (*v3.IPPool, error) {
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

// hostsOf returns the nodes that have a network on the pool, and whether this driver made it.
func hostsOf(pool *v3.IPPool) ([]string, bool) {
	noted, ours := pool.Annotations[hosts]
	return strings.FieldsFunc(noted, func(letter rune) bool { return letter == ',' }), ours
}

// dropPool removes a pool that this driver made, unless an address of it is still in use.
func (d *Driver) dropPool(ctx context.Context, pool *v3.IPPool) error {
	use, err := d.Addresses.GetUtilization(ctx, calico.GetUtilizationArgs{Pools: []string{pool.Name}})
	if err != nil {
		return err
	}
	for _, each := range use {
		for _, block := range each.Blocks {
			if block.Available < block.Capacity {
				return fmt.Errorf("%w: addresses of block %s are in use", ErrStays, block.CIDR)
			}
		}
	}
	_, err = d.Pools.Delete(ctx, pool.Name, options.DeleteOptions{ResourceVersion: pool.ResourceVersion})
	if datastore.Absent(err) {
		return nil
	}
	return err
}

// LeavePool notes that no network of this host uses the pool any more, and removes one that this driver made with the
// last host's network. One that is not there is no error.
func (d *Driver) LeavePool(ctx context.Context, cidr netip.Prefix) error {
	d.noting.Lock()
	defer d.noting.Unlock()
	if d.Used(cidr) || d.promises.count(cidr) > 0 {
		return fmt.Errorf("%w: a network of this host is on %s", ErrStays, cidr)
	}
	return d.Give.Do(ctx, "give up pool "+cidr.String(), func(ctx context.Context) error {
		err := d.changeHosts(ctx, cidr, func(_ *v3.IPPool, all []string) ([]string, error) {
			return slices.DeleteFunc(all, func(each string) bool { return each == d.Node }), nil
		})
		if errors.Is(err, errNoPool) {
			return nil
		}
		return err
	})
}

// HeldPools are the pools that this driver made, and that a network of this host is noted on. A disabled one is a pool
// whose removal was interrupted, and wants to be given up once more.
func (d *Driver) HeldPools(ctx context.Context) ([]netip.Prefix, error) {
	list, err := d.Pools.List(ctx, options.ListOptions{})
	if err != nil {
		return nil, err
	}
	var held []netip.Prefix
	for i := range list.Items {
		if all, _ := hostsOf(&list.Items[i]); slices.Contains(all, d.Node) {
			held = append(held, datastore.CIDR(list.Items[i]))
		}
	}
	return held, nil
}
