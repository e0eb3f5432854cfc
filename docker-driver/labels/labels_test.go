package labels_test

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/engine"
	"calico-lab/docker-driver/labels"
)

func TestEndpoint(t *testing.T) {
	got, refused := labels.Endpoint(map[string]string{
		"org.projectcalico.label.role":                        "web",
		"org.projectcalico.label.example.org/tier":            "front",
		"org.projectcalico.label.empty":                       "",
		"org.projectcalico.label.":                            "nameless",
		"org.projectcalico.label.bad value":                   "x",
		"org.projectcalico.label.long":                        strings.Repeat("x", 64),
		"org.projectcalico.label.projectcalico.org/namespace": "stolen",
		"role": "not ours",
	})
	want := map[string]string{"role": "web", "example.org/tier": "front", "empty": ""}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("labels %v, not %v", got, want)
	}
	if len(refused) != 4 {
		t.Errorf("refused %q", refused)
	}
}

// host is an engine and the endpoints that the follower writes to.
type host struct {
	mutex      sync.Mutex
	containers map[string]engine.Container
	events     chan string
	written    map[string]string
	slow       string
	release    chan struct{}
	ended      chan struct{}
}

func (h *host) Container(_ context.Context, id string) (engine.Container, error) {
	if id == h.slow {
		<-h.release
	}
	container, there := h.containers[id]
	if !there {
		return container, engine.ErrAbsent
	}
	return container, nil
}

func (h *host) Running(context.Context) ([]string, error) { return []string{"before"}, nil }

func (h *host) Watch(ctx context.Context, subscribed func(), attached func(string)) error {
	subscribed()
	for {
		select {
		case id := <-h.events:
			attached(id)
		case <-h.ended:
			return errors.New("the engine went away")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (h *host) Identify(_ context.Context, endpoint, container, name string, labels map[string]string) error {
	h.mutex.Lock()
	defer h.mutex.Unlock()
	h.written[endpoint] = container + " " + name + " " + labels["role"]
	return nil
}

func (h *host) waitFor(t *testing.T, endpoint, want string) {
	t.Helper()
	var got string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		h.mutex.Lock()
		got = h.written[endpoint]
		h.mutex.Unlock()
		if got == want {
			return
		}
	}
	t.Fatalf("endpoint %s: %q, not %q", endpoint, got, want)
}

func TestFollower(t *testing.T) {
	container := func(id, endpoint string) engine.Container {
		return engine.Container{
			ID: id, Name: "n-" + id, Endpoints: []string{endpoint}, Labels: map[string]string{labels.Prefix + "role": "web"},
		}
	}
	h := &host{
		containers: map[string]engine.Container{
			"before": container("before", "e0"), "slow": container("slow", "e1"), "quick": container("quick", "e2"),
		},
		events: make(chan string), written: map[string]string{}, slow: "slow",
		release: make(chan struct{}), ended: make(chan struct{}),
	}
	subscriptions := make(chan struct{}, 10)
	follower := labels.New(labels.Follower{
		Engine: h, Endpoints: h, Datastore: datastore.Patience{Limit: time.Second},
		Subscribed: func() { subscriptions <- struct{}{} }, Retry: time.Hour, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		follower.Run(ctx)
		close(done)
	}()
	<-subscriptions
	h.waitFor(t, "e0", "before n-before web")
	h.events <- "slow"
	h.events <- "gone"
	h.events <- ""
	h.events <- "quick"
	h.waitFor(t, "e2", "quick n-quick web")
	close(h.release)
	h.waitFor(t, "e1", "slow n-slow web")
	h.ended <- struct{}{}
	<-subscriptions
	cancel()
	<-done
}

// unlucky is a host on which the first try of one step fails.
type unlucky struct {
	*host
	step string
	once sync.Once
}

func (u *unlucky) fail(step string) (err error) {
	if step == u.step {
		u.once.Do(func() { err = errors.New("not this time") })
	}
	return err
}

func (u *unlucky) Running(ctx context.Context) ([]string, error) {
	if err := u.fail("running"); err != nil {
		return nil, err
	}
	return u.host.Running(ctx)
}

func (u *unlucky) Container(ctx context.Context, id string) (engine.Container, error) {
	if err := u.fail("container"); err != nil {
		return engine.Container{}, err
	}
	return u.host.Container(ctx, id)
}

func (u *unlucky) Identify(ctx context.Context, endpoint, container, name string, labels map[string]string) error {
	if err := u.fail("identify"); err != nil {
		return err
	}
	return u.host.Identify(ctx, endpoint, container, name, labels)
}

func TestLabelsThatCouldNotBeWrittenAreWrittenLater(t *testing.T) {
	for _, step := range []string{"running", "container", "identify"} {
		t.Run(step, func(t *testing.T) {
			h := &unlucky{step: step, host: &host{
				containers: map[string]engine.Container{"before": {ID: "before", Name: "n", Endpoints: []string{"e0"}}},
				written:    map[string]string{},
			}}
			follower := labels.New(labels.Follower{
				Engine: h, Endpoints: h, Datastore: datastore.Patience{Limit: time.Second}, Subscribed: func() {},
				Retry: time.Millisecond, Log: slog.New(slog.DiscardHandler),
			})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				follower.Run(ctx)
				close(done)
			}()
			h.waitFor(t, "e0", "before n ")
			cancel()
			<-done
		})
	}
}
