package datastore_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	calicoerrors "github.com/projectcalico/calico/libcalico-go/lib/errors"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"calico-lab/docker-driver/datastore"
)

var retry = datastore.Retry{Endpoints: "https://a0:2379", Timeout: 500 * time.Millisecond}

// fromMember returns the error of etcd's client for a member's status.
func fromMember(status error) error { return rpctypes.Error(status) }

func TestRetryDo(t *testing.T) {
	unavailable := calicoerrors.ErrorDatastoreError{Err: status.Error(codes.Unavailable, "no connection")}
	cases := map[string]struct {
		errors   []error
		attempts int
		want     string
	}{
		"success":         {errors: []error{nil}, attempts: 1},
		"connection lost": {errors: []error{unavailable, nil}, attempts: 2},
		"time-out":        {errors: []error{context.DeadlineExceeded, nil}, attempts: 2},
		"no leader":       {errors: []error{fromMember(rpctypes.ErrGRPCNoLeader), nil}, attempts: 2},
		"leader changed":  {errors: []error{fromMember(rpctypes.ErrGRPCLeaderChanged), nil}, attempts: 2},
		"etcd time-out":   {errors: []error{fromMember(rpctypes.ErrGRPCTimeout), nil}, attempts: 2},
		"member stopping": {
			errors: []error{fromMember(rpctypes.ErrGRPCStopped), nil}, attempts: 2,
		},
		"unhealthy cluster": {
			errors: []error{fromMember(rpctypes.ErrGRPCUnhealthy), nil}, attempts: 2,
		},
		"time-out due to leader failure": {
			errors:   []error{calicoerrors.ErrorDatastoreError{Err: fromMember(rpctypes.ErrGRPCTimeoutDueToLeaderFail)}, nil},
			attempts: 2,
		},
		"no space": {
			errors: []error{fromMember(rpctypes.ErrGRPCNoSpace)}, attempts: 1, want: "step: etcdserver: mvcc: database space exceeded",
		},
		"incomplete response": {
			errors: []error{status.Error(codes.Unknown, "malformed header: missing HTTP content-type"), nil}, attempts: 2,
		},
		"expired context of a member": {
			errors: []error{status.Error(codes.Unknown, "context deadline exceeded"), nil}, attempts: 2,
		},
		"not found": {
			errors:   []error{calicoerrors.ErrorResourceDoesNotExist{Identifier: "x"}},
			attempts: 1, want: "step: resource does not exist: x",
		},
		"unauthenticated": {
			errors:   []error{status.Error(codes.Unauthenticated, "invalid token")},
			attempts: 1, want: "step: rpc error: code = Unauthenticated",
		},
		"no response until the time-out": {
			errors: []error{unavailable}, attempts: 3,
			want: "step: etcd (https://a0:2379) did not answer within ",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			attempts := 0
			err := retry.Do(t.Context(), "step", func(context.Context) error {
				attempts++
				return c.errors[min(attempts, len(c.errors))-1]
			})
			if got := fmt.Sprint(err); (c.want == "") != (err == nil) || !strings.HasPrefix(got, c.want) && err != nil {
				t.Errorf("error %q, not %q", got, c.want)
			}
			if attempts != c.attempts {
				t.Errorf("%d attempts, not %d", attempts, c.attempts)
			}
		})
	}
}

func TestRetryDoInterruptsHangingStep(t *testing.T) {
	started := time.Now()
	err := retry.Do(t.Context(), "step", func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	if took := time.Since(started); err == nil || took > 5*time.Second {
		t.Errorf("took %s, error %v", took, err)
	}
}

func TestRetryDoKeepsErrorType(t *testing.T) {
	kinds := map[string]struct {
		err error
		is  func(error) bool
	}{
		"not found":      {calicoerrors.ErrorResourceDoesNotExist{}, datastore.IsNotFound},
		"already exists": {calicoerrors.ErrorResourceAlreadyExists{}, datastore.IsAlreadyExists},
		"conflict":       {calicoerrors.ErrorResourceUpdateConflict{}, datastore.IsConflict},
	}
	for name, kind := range kinds {
		err := retry.Do(t.Context(), "step", func(context.Context) error { return kind.err })
		for other, each := range kinds {
			if each.is(err) != (name == other) {
				t.Errorf("%s counts as %s: %v", name, other, each.is(err))
			}
		}
	}
}
