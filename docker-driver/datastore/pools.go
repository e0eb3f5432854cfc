package datastore

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/projectcalico/calico/libcalico-go/lib/options"
)

// PoolLister is the part of Calico's IPPool client that lists pools.
type PoolLister interface {
	List(ctx context.Context, opts options.ListOptions) (*v3.IPPoolList, error)
}

// Pool is an enabled IPPool.
type Pool struct {
	Name string
	CIDR netip.Prefix
}

func (p Pool) String() string { return p.Name + " " + p.CIDR.String() }

// Pools are the enabled IPPools.
type Pools []Pool

// EnabledPools lists the enabled IPPools.
func EnabledPools(ctx context.Context, lister PoolLister) (Pools, error) {
	list, err := lister.List(ctx, options.ListOptions{})
	if err != nil {
		return nil, err
	}
	return Enabled(list), nil
}

// Enabled returns the enabled IPPools of the list.
func Enabled(list *v3.IPPoolList) Pools {
	var pools Pools
	for _, item := range list.Items {
		if cidr := CIDR(item); cidr.IsValid() && !item.Spec.Disabled {
			pools = append(pools, Pool{Name: item.Name, CIDR: cidr})
		}
	}
	return pools
}

// CIDR returns the IPPool's CIDR with host bits cleared. It returns the zero prefix if the CIDR is invalid.
func CIDR(pool v3.IPPool) netip.Prefix {
	cidr, err := netip.ParsePrefix(pool.Spec.CIDR)
	if err != nil {
		return netip.Prefix{}
	}
	return cidr.Masked()
}

// WithCIDR returns the pool with this CIDR.
func (p Pools) WithCIDR(cidr string) (Pool, error) {
	prefix, err := ParseCIDR(cidr)
	if err != nil {
		return Pool{}, err
	}
	for _, pool := range p {
		if pool.CIDR == prefix {
			return pool, nil
		}
	}
	return Pool{}, fmt.Errorf("%s is not an enabled Calico IPPool; %s", cidr, p.Describe())
}

// ParseCIDR parses a pool's CIDR and clears its host bits.
func ParseCIDR(cidr string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return prefix, fmt.Errorf("%q is not a CIDR such as 192.168.0.0/16: %w", cidr, err)
	}
	return prefix.Masked(), nil
}

// WithName returns the pool with this name.
func (p Pools) WithName(name string) (Pool, error) {
	for _, pool := range p {
		if pool.Name == name {
			return pool, nil
		}
	}
	return Pool{}, fmt.Errorf("%s is not the name of an enabled Calico IPPool; %s", name, p.Describe())
}

// Containing returns the pool that contains the address.
func (p Pools) Containing(address netip.Addr) (Pool, error) {
	for _, pool := range p {
		if pool.CIDR.Contains(address) {
			return pool, nil
		}
	}
	return Pool{}, fmt.Errorf("%s is not in an enabled Calico IPPool; %s", address, p.Describe())
}

// Describe lists the pools for an error message.
func (p Pools) Describe() string {
	if len(p) == 0 {
		return "there is no enabled pool: create one first (calicoctl create -f with kind IPPool)"
	}
	names := make([]string, len(p))
	for i, pool := range p {
		names[i] = pool.String()
	}
	return "the enabled pools are: " + strings.Join(names, ", ")
}
