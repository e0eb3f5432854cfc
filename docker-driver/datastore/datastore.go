// Package datastore connects to Calico's etcd, and gives every step that asks it a limit in time. It owes the person
// who waits an error that names the step, the etcd members and what to look at.
package datastore

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/projectcalico/calico/libcalico-go/lib/apiconfig"
	backend "github.com/projectcalico/calico/libcalico-go/lib/backend/api"
	"github.com/projectcalico/calico/libcalico-go/lib/backend/model"
	"github.com/projectcalico/calico/libcalico-go/lib/clientv3"
	calicoerrors "github.com/projectcalico/calico/libcalico-go/lib/errors"
	"github.com/projectcalico/calico/libcalico-go/lib/ipam"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// attempt is how long one try may take: etcd itself gives up on a request without a quorum after 5 to 7 seconds, and
// the client must be able to move on to a member that answers.
const attempt = 8 * time.Second

// pause lies between tries.
const pause = 200 * time.Millisecond

// etcdLog is the variable by which etcd's client decides what it logs.
const etcdLog = "ETCD_CLIENT_DEBUG"

// Connect reads DATASTORE_TYPE, ETCD_ENDPOINTS and the rest of Calico's own environment. It does not wait for etcd.
func Connect() (clientv3.Interface, Patience, error) {
	config, err := apiconfig.LoadClientConfigFromEnvironment()
	if err != nil {
		return nil, Patience{}, fmt.Errorf("read the datastore's settings from the environment: %w", err)
	}
	if config.Spec.DatastoreType != apiconfig.EtcdV3 {
		return nil, Patience{}, fmt.Errorf("DATASTORE_TYPE is %q: this driver needs %q", config.Spec.DatastoreType,
			apiconfig.EtcdV3)
	}
	// The etcd client logs in a format of its own; what it says comes back in errors as well.
	if _, set := os.LookupEnv(etcdLog); !set {
		if err := os.Setenv(etcdLog, "fatal"); err != nil {
			return nil, Patience{}, fmt.Errorf("silence etcd's client: %w", err)
		}
	}
	client, err := clientv3.New(*config)
	if err != nil {
		return nil, Patience{}, fmt.Errorf("prepare the connection to etcd (ETCD_ENDPOINTS is %q): %w",
			config.Spec.EtcdEndpoints, err)
	}
	return client, Patience{Where: config.Spec.EtcdEndpoints}, nil
}

// Patience bounds how long a step waits for etcd.
type Patience struct {
	// Where names the etcd members in errors.
	Where string
	// Limit of a whole step with all its tries.
	Limit time.Duration
}

// Within returns the same with another limit.
func (p Patience) Within(limit time.Duration) Patience {
	p.Limit = limit
	return p
}

// Bound returns a context in which all steps of a call together take no longer than the limit.
func (p Patience) Bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, p.Limit)
}

// Do runs the step, and again after a failure that a quorum can mend, until the limit. The step must be safe to repeat.
func (p Patience) Do(ctx context.Context, step string, run func(context.Context) error) error {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, p.Limit)
	defer cancel()
	for {
		one, done := context.WithTimeout(ctx, attempt)
		err := run(one)
		done()
		if err == nil {
			return nil
		}
		if !passing(err) {
			return fmt.Errorf("%s: %w", step, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: etcd (%s) gave no answer within %s: look at the members' health and the "+
				"network between them; the last error was: %w", step, p.Where, time.Since(started).Round(time.Second), err)
		case <-time.After(pause):
		}
	}
}

// passing tells the failures of a connection or a quorum from answers of the datastore.
func passing(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	var failed calicoerrors.ErrorDatastoreError
	if errors.As(err, &failed) && failed.Err != nil {
		err = failed.Err
	}
	var withStatus interface{ GRPCStatus() *status.Status }
	if errors.As(err, &withStatus) {
		switch withStatus.GRPCStatus().Code() {
		case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
			return true
		case codes.Unknown, codes.Internal:
			// No answer of etcd's has these two: a member that is killed breaks an answer off ("malformed header"), and
			// one without a quorum passes its own expired context on as it is.
			return true
		}
	}
	// The etcd client turns the answers of members into errors of its own, which have no more than a code.
	var withCode interface{ Code() codes.Code }
	return errors.As(err, &withCode) && withCode.Code() == codes.Unavailable
}

// Unanswered tells that a step failed because etcd did not answer it in time.
func Unanswered(err error) bool { return err != nil && passing(err) }

// Absent tells that the thing asked for is not in the datastore.
func Absent(err error) bool {
	var absent calicoerrors.ErrorResourceDoesNotExist
	return errors.As(err, &absent)
}

// Present tells that the thing to make is there already.
func Present(err error) bool {
	var present calicoerrors.ErrorResourceAlreadyExists
	return errors.As(err, &present)
}

// Conflict tells that somebody else changed the thing in between.
func Conflict(err error) bool {
	var conflict calicoerrors.ErrorResourceUpdateConflict
	return errors.As(err, &conflict)
}

// Allocation is one address that IPAM holds as in use.
type Allocation struct {
	Address  netip.Addr
	Handle   string
	Node     string
	Sequence uint64
}

// Blocks lists IPAM's blocks, which the client's own interface does not: it knows allocations by handle only.
type Blocks struct {
	backend backend.Client
}

// BlocksOf takes the blocks out of a client, the way calicoctl does.
func BlocksOf(client clientv3.Interface) (Blocks, error) {
	behind, ok := client.(interface{ Backend() backend.Client })
	if !ok {
		return Blocks{}, errors.New("this version of Calico's client library hides its backend")
	}
	return Blocks{backend: behind.Backend()}, nil
}

// Allocations returns what the node has allocated in any pool, and the handles of any node that start with the prefix and
// that no address has, by ID with their revisions. IPAM writes a handle before the address that it is for, and removes it
// after: what is killed in between leaves it.
func (b Blocks) Allocations(ctx context.Context, node, prefix string) ([]Allocation, map[string]string, error) {
	// Before the blocks, so that one that gets its address in between is not taken for empty.
	handles, err := b.backend.List(ctx, model.IPAMHandleListOptions{}, "")
	if err != nil {
		return nil, nil, err
	}
	empty := map[string]string{}
	for _, pair := range handles.KVPairs {
		if key, ok := pair.Key.(model.IPAMHandleKey); ok && strings.HasPrefix(key.HandleID, prefix) {
			empty[key.HandleID] = pair.Revision
		}
	}
	blocks, err := b.backend.List(ctx, model.BlockListOptions{}, "")
	if err != nil {
		return nil, nil, err
	}
	var all []Allocation
	for _, pair := range blocks.KVPairs {
		block, ok := pair.Value.(*model.AllocationBlock)
		if !ok {
			continue
		}
		for _, allocation := range inBlock(block) {
			delete(empty, allocation.Handle)
			if allocation.Node == node {
				all = append(all, allocation)
			}
		}
	}
	return all, empty, nil
}

// RemoveHandle removes the handle, unless it has changed since that revision or is gone.
func (b Blocks) RemoveHandle(ctx context.Context, id, revision string) error {
	_, err := b.backend.Delete(ctx, model.IPAMHandleKey{HandleID: id}, revision)
	if Absent(err) || Conflict(err) {
		return nil
	}
	return err
}

func inBlock(block *model.AllocationBlock) []Allocation {
	var all []Allocation
	for ordinal, index := range block.Allocations {
		if index == nil || *index >= len(block.Attributes) {
			continue
		}
		attribute := block.Attributes[*index]
		address, ok := netip.AddrFromSlice(block.OrdinalToIP(ordinal).IP)
		if !ok || attribute.AttrPrimary == nil {
			continue
		}
		all = append(all, Allocation{
			Address:  address.Unmap(),
			Handle:   *attribute.AttrPrimary,
			Node:     attribute.AttrSecondary[ipam.AttributeNode],
			Sequence: block.GetSequenceNumberForOrdinal(ordinal),
		})
	}
	return all
}
