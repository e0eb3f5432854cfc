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
	"calico-lab/docker-driver/trigger"
)

func TestFromContainer(t *testing.T) {
	got, invalid := labels.FromContainer(map[string]string{
		"org.projectcalico.label.role":                        "web",
		"org.projectcalico.label.example.org/tier":            "front",
		"org.projectcalico.label.empty":                       "",
		"org.projectcalico.label.":                            "no-name",
		"org.projectcalico.label.bad value":                   "x",
		"org.projectcalico.label.long":                        strings.Repeat("x", 64),
		"org.projectcalico.label.projectcalico.org/namespace": "reserved",
		"role": "no-prefix",
	})
	want := map[string]string{"role": "web", "example.org/tier": "front", "empty": ""}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("labels %v, not %v", got, want)
	}
	if len(invalid) != 4 {
		t.Errorf("invalid %q", invalid)
	}
}

// host is an engine and its WorkloadEndpoints, with their labels as written.
type host struct {
	mutex      sync.Mutex
	containers map[string]engine.Container
	events     chan string
	written    map[string]string
	// slow is the ID of a container whose inspection waits for release.
	slow    string
	release chan struct{}
	// ended ends the event stream.
	ended chan struct{}
}

func (h *host) Container(_ context.Context, id string) (engine.Container, error) {
	if id == h.slow {
		<-h.release
	}
	container, found := h.containers[id]
	if !found {
		return container, engine.ErrNotFound
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
			return errors.New("the engine stopped")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (h *host) SetContainer(_ context.Context, endpoint, container, name string, labels map[string]string) error {
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

func TestFollowerRun(t *testing.T) {
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
	follower := &labels.Follower{
		Engine: h, Endpoints: h, Retry: datastore.Retry{Timeout: time.Second}, All: trigger.New(),
		Subscribed: func() { subscriptions <- struct{}{} }, RetryDelay: time.Hour, Log: slog.New(slog.DiscardHandler),
	}
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

// failing is a host on which the first attempt of one step fails.
type failing struct {
	*host
	step string
	once sync.Once
}

func (f *failing) fail(step string) (err error) {
	if step == f.step {
		f.once.Do(func() { err = errors.New("first attempt") })
	}
	return err
}

func (f *failing) Running(ctx context.Context) ([]string, error) {
	if err := f.fail("running"); err != nil {
		return nil, err
	}
	return f.host.Running(ctx)
}

func (f *failing) Container(ctx context.Context, id string) (engine.Container, error) {
	if err := f.fail("container"); err != nil {
		return engine.Container{}, err
	}
	return f.host.Container(ctx, id)
}

func (f *failing) SetContainer(ctx context.Context, endpoint, container, name string, labels map[string]string) error {
	if err := f.fail("identify"); err != nil {
		return err
	}
	return f.host.SetContainer(ctx, endpoint, container, name, labels)
}

func TestFollowerRetriesAfterFailure(t *testing.T) {
	for _, step := range []string{"running", "container", "identify"} {
		t.Run(step, func(t *testing.T) {
			h := &failing{step: step, host: &host{
				containers: map[string]engine.Container{"before": {ID: "before", Name: "n", Endpoints: []string{"e0"}}},
				written:    map[string]string{},
			}}
			follower := &labels.Follower{
				Engine: h, Endpoints: h, Retry: datastore.Retry{Timeout: time.Second}, All: trigger.New(),
				Subscribed: func() {}, RetryDelay: time.Millisecond, Log: slog.New(slog.DiscardHandler),
			}
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
