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

var patience = datastore.Patience{Where: "https://a0:2379", Limit: 500 * time.Millisecond}

// answered is what etcd's client makes of an answer of a member's.
func answered(status error) error { return rpctypes.Error(status) }

func TestPatience(t *testing.T) {
	unavailable := calicoerrors.ErrorDatastoreError{Err: status.Error(codes.Unavailable, "no connection")}
	cases := map[string]struct {
		errors []error
		tries  int
		want   string
	}{
		"answered at once":  {errors: []error{nil}, tries: 1},
		"a lost connection": {errors: []error{unavailable, nil}, tries: 2},
		"a time-out":        {errors: []error{context.DeadlineExceeded, nil}, tries: 2},
		"an election":       {errors: []error{answered(rpctypes.ErrGRPCNoLeader), nil}, tries: 2},
		"another leader":    {errors: []error{answered(rpctypes.ErrGRPCLeaderChanged), nil}, tries: 2},
		"a slow quorum":     {errors: []error{answered(rpctypes.ErrGRPCTimeout), nil}, tries: 2},
		"a member that stops": {
			errors: []error{answered(rpctypes.ErrGRPCStopped), nil}, tries: 2,
		},
		"an unhealthy cluster": {
			errors: []error{answered(rpctypes.ErrGRPCUnhealthy), nil}, tries: 2,
		},
		"a member without a leader for long": {
			errors: []error{calicoerrors.ErrorDatastoreError{Err: answered(rpctypes.ErrGRPCTimeoutDueToLeaderFail)}, nil},
			tries:  2,
		},
		"a full disk": {
			errors: []error{answered(rpctypes.ErrGRPCNoSpace)}, tries: 1, want: "look: etcdserver: mvcc: database space exceeded",
		},
		"an answer broken off": {
			errors: []error{status.Error(codes.Unknown, "malformed header: missing HTTP content-type"), nil}, tries: 2,
		},
		"a member's own time-out": {
			errors: []error{status.Error(codes.Unknown, "context deadline exceeded"), nil}, tries: 2,
		},
		"an answer": {
			errors: []error{calicoerrors.ErrorResourceDoesNotExist{Identifier: "x"}},
			tries:  1, want: "look: resource does not exist: x",
		},
		"a refused password": {
			errors: []error{status.Error(codes.Unauthenticated, "who are you")},
			tries:  1, want: "look: rpc error: code = Unauthenticated",
		},
		"no answer for good": {
			errors: []error{unavailable}, tries: 3,
			want: "look: etcd (https://a0:2379) gave no answer within ",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tries := 0
			err := patience.Do(t.Context(), "look", func(context.Context) error {
				tries++
				return c.errors[min(tries, len(c.errors))-1]
			})
			if got := fmt.Sprint(err); (c.want == "") != (err == nil) || !strings.HasPrefix(got, c.want) && err != nil {
				t.Errorf("error %q, not %q", got, c.want)
			}
			if tries != c.tries {
				t.Errorf("%d tries, not %d", tries, c.tries)
			}
		})
	}
}

func TestPatienceInterruptsAStepThatHangs(t *testing.T) {
	started := time.Now()
	err := patience.Do(t.Context(), "look", func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	if took := time.Since(started); err == nil || took > 5*time.Second {
		t.Errorf("took %s, error %v", took, err)
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	kinds := map[string]struct {
		err error
		is  func(error) bool
	}{
		"absent":   {calicoerrors.ErrorResourceDoesNotExist{}, datastore.Absent},
		"present":  {calicoerrors.ErrorResourceAlreadyExists{}, datastore.Present},
		"conflict": {calicoerrors.ErrorResourceUpdateConflict{}, datastore.Conflict},
	}
	for name, kind := range kinds {
		err := patience.Do(t.Context(), "look", func(context.Context) error { return kind.err })
		for other, each := range kinds {
			if each.is(err) != (name == other) {
				t.Errorf("%s counts as %s: %v", name, other, each.is(err))
			}
		}
	}
}
