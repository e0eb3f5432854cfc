// Package datastore connects to Calico's etcd and retries requests to it for a limited time. An error after the time limit
// names the step, the etcd members and what to check.
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

// attemptTimeout limits one attempt. It is longer than etcd's own time-out for a request without a quorum (5 to 7 s), and
// short enough that the client can try another member.
const attemptTimeout = 8 * time.Second

// retryDelay is the pause between attempts.
const retryDelay = 200 * time.Millisecond

// etcdLogLevel is the environment variable with the log level of etcd's client.
const etcdLogLevel = "ETCD_CLIENT_DEBUG"

// Connect makes a client from Calico's environment variables (DATASTORE_TYPE, ETCD_ENDPOINTS and so on). It does not wait
// for etcd.
func Connect() (clientv3.Interface, Retry, error) {
	config, err := apiconfig.LoadClientConfigFromEnvironment()
	if err != nil {
		return nil, Retry{}, fmt.Errorf("read the datastore configuration from the environment: %w", err)
	}
	if config.Spec.DatastoreType != apiconfig.EtcdV3 {
		return nil, Retry{}, fmt.Errorf("DATASTORE_TYPE is %q: this driver needs %q", config.Spec.DatastoreType,
			apiconfig.EtcdV3)
	}
	// The etcd client logs in its own format. The driver logs the errors that it returns instead.
	if _, set := os.LookupEnv(etcdLogLevel); !set {
		if err := os.Setenv(etcdLogLevel, "fatal"); err != nil {
			return nil, Retry{}, fmt.Errorf("set the log level of etcd's client: %w", err)
		}
	}
	client, err := clientv3.New(*config)
	if err != nil {
		return nil, Retry{}, fmt.Errorf("create the etcd client (ETCD_ENDPOINTS is %q): %w",
			config.Spec.EtcdEndpoints, err)
	}
	return client, Retry{Endpoints: config.Spec.EtcdEndpoints}, nil
}

// Retry retries requests to etcd until a time-out.
type Retry struct {
	// Endpoints are the etcd members, for error messages.
	Endpoints string
	// Timeout limits all attempts together.
	Timeout time.Duration
}

// WithTimeout returns a copy with another time-out.
func (r Retry) WithTimeout(timeout time.Duration) Retry {
	r.Timeout = timeout
	return r
}

// Context returns a context that ends after the time-out, for calls of several steps.
func (r Retry) Context(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, r.Timeout)
}

// Do runs the step until it succeeds, fails with an error that is not temporary, or the time-out ends. The step must be
// idempotent.
func (r Retry) Do(ctx context.Context, step string, run func(context.Context) error) error {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	for {
		attempt, done := context.WithTimeout(ctx, attemptTimeout)
		err := run(attempt)
		done()
		if err == nil {
			return nil
		}
		if !temporary(err) {
			return fmt.Errorf("%s: %w", step, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: etcd (%s) did not answer within %s: check the members' health and the "+
				"network between them; the last error was: %w", step, r.Endpoints, time.Since(started).Round(time.Second), err)
		case <-time.After(retryDelay):
		}
	}
}

// temporary reports whether the error is a failure of a connection or of the quorum, and not a result.
func temporary(err error) bool {
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
			// etcd itself does not return these codes. A killed member causes an incomplete response ("malformed header"),
			// and a member without a quorum returns the error of its own expired context.
			return true
		}
	}
	// The etcd client converts errors of members to a type of its own, which has a code and no status.
	var withCode interface{ Code() codes.Code }
	return errors.As(err, &withCode) && withCode.Code() == codes.Unavailable
}

// IsTimeout reports whether a step failed because etcd did not answer in time.
func IsTimeout(err error) bool { return err != nil && temporary(err) }

// IsNotFound reports whether the resource does not exist in the datastore.
func IsNotFound(err error) bool {
	var notFound calicoerrors.ErrorResourceDoesNotExist
	return errors.As(err, &notFound)
}

// IsAlreadyExists reports whether a resource could not be created because it exists.
func IsAlreadyExists(err error) bool {
	var exists calicoerrors.ErrorResourceAlreadyExists
	return errors.As(err, &exists)
}

// IsConflict reports whether the resource was changed since it was read.
func IsConflict(err error) bool {
	var conflict calicoerrors.ErrorResourceUpdateConflict
	return errors.As(err, &conflict)
}

// Allocation is one allocated address in IPAM.
type Allocation struct {
	Address  netip.Addr
	Handle   string
	Node     string
	Sequence uint64
}

// Blocks reads IPAM's blocks. Calico's client interface cannot list them: it finds allocations by handle only.
type Blocks struct {
	backend backend.Client
}

// NewBlocks uses the backend of the client, as calicoctl does.
func NewBlocks(client clientv3.Interface) (Blocks, error) {
	behind, ok := client.(interface{ Backend() backend.Client })
	if !ok {
		return Blocks{}, errors.New("this version of Calico's client library does not export its backend")
	}
	return Blocks{backend: behind.Backend()}, nil
}

// Allocations returns the node's allocations in all pools. It also returns the handles of all nodes that start with the
// prefix and have no address: revisions by handle ID. IPAM writes a handle before its address and deletes it after the
// address, so a process that is killed in between leaves such a handle.
func (b Blocks) Allocations(ctx context.Context, node, prefix string) ([]Allocation, map[string]string, error) {
	// Handles are read before blocks, so that a handle that gets its address in between does not count as empty.
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
		for _, allocation := range allocationsOf(block) {
			delete(empty, allocation.Handle)
			if allocation.Node == node {
				all = append(all, allocation)
			}
		}
	}
	return all, empty, nil
}

// RemoveHandle deletes the handle, unless it has changed since the revision. A handle that does not exist is no error.
func (b Blocks) RemoveHandle(ctx context.Context, id, revision string) error {
	_, err := b.backend.Delete(ctx, model.IPAMHandleKey{HandleID: id}, revision)
	if IsNotFound(err) || IsConflict(err) {
		return nil
	}
	return err
}

func allocationsOf(block *model.AllocationBlock) []Allocation {
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
