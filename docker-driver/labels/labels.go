// Package labels copies containers' labels to their WorkloadEndpoints, where Calico's policies select by them. The
// labels are set within a second after the container's start; until then the endpoint has the label workload.Starting.
// After a failure they are set again a minute later.
package labels

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/engine"
	"calico-lab/docker-driver/trigger"
)

// Prefix is the prefix of the container labels that are copied. It is removed from the copy.
const Prefix = "org.projectcalico.label."

// reservedPrefix is the prefix of Calico's own labels.
const reservedPrefix = "projectcalico.org/"

// Engine is the part of Docker's API that is used.
type Engine interface {
	Container(ctx context.Context, id string) (engine.Container, error)
	Running(ctx context.Context) ([]string, error)
	Watch(ctx context.Context, subscribed func(), attached func(containerID string)) error
}

// Endpoints writes the labels.
type Endpoints interface {
	SetContainer(ctx context.Context, endpointID, containerID, name string, labels map[string]string) error
}

// Follower sets labels when Docker reports a container event.
type Follower struct {
	Engine    Engine
	Endpoints Endpoints
	Retry     datastore.Retry
	// All requests that the labels of all running containers are set.
	All trigger.Trigger
	// Subscribed is called whenever the event stream is open. The engine answers API requests from then on.
	Subscribed func()
	// RetryDelay is the pause before labels are set again after a failure.
	RetryDelay time.Duration
	Log        *slog.Logger
}

// retryLater sets the labels of all containers again later, because without its labels an endpoint is not selected by
// policies that should restrict it.
func (f *Follower) retryLater() { time.AfterFunc(f.RetryDelay, f.All.Request) }

// reconnectDelay is the pause before the event stream is opened again.
const reconnectDelay = time.Second

// concurrency limits how many containers are inspected at once. It is more than one because Docker answers a request for a
// container that is starting only after the start, and other containers must not wait for it.
const concurrency = 16

// Run processes events until the context ends.
func (f *Follower) Run(ctx context.Context) {
	slots := make(chan struct{}, concurrency)
	attached := func(containerID string) {
		if containerID == "" {
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		go func() {
			defer func() { <-slots }()
			f.apply(ctx, containerID)
		}()
	}
	go func() {
		for {
			select {
			case <-f.All:
				f.applyAll(ctx, attached)
			case <-ctx.Done():
				return
			}
		}
	}()
	for ctx.Err() == nil {
		err := f.Engine.Watch(ctx, func() {
			f.Subscribed()
			f.All.Request()
		}, attached)
		f.Log.Debug("the stream of Docker's events ended", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(reconnectDelay):
		}
	}
}

// applyAll processes all running containers, because some may have started while the event stream was closed.
func (f *Follower) applyAll(ctx context.Context, attached func(string)) {
	ids, err := f.Engine.Running(ctx)
	if err != nil {
		f.Log.Warn("labels of running containers not set; retrying later", "error", err)
		f.retryLater()
		return
	}
	for _, id := range ids {
		attached(id)
	}
}

// apply sets the labels of the container's endpoints.
func (f *Follower) apply(ctx context.Context, containerID string) {
	container, err := f.Engine.Container(ctx, containerID)
	if err != nil {
		if !errors.Is(err, engine.ErrNotFound) {
			f.Log.Warn("labels of a container not read; retrying later", "container", containerID, "error", err)
			f.retryLater()
		}
		return
	}
	wanted, invalid := FromContainer(container.Labels)
	for _, reason := range invalid {
		f.Log.Warn("label not copied", "container", container.Name, "reason", reason)
	}
	for _, endpointID := range container.Endpoints {
		err := f.Retry.Do(ctx, "set the labels of the endpoint of container "+container.Name, func(ctx context.Context) error {
			err := f.Endpoints.SetContainer(ctx, endpointID, container.ID, container.Name, wanted)
			if datastore.IsNotFound(err) {
				// The endpoint is another driver's, or its container was removed.
				return nil
			}
			return err
		})
		if err != nil {
			f.Log.Warn("labels not set; retrying later", "container", container.Name, "endpoint", endpointID, "error", err)
			f.retryLater()
		}
	}
}

// FromContainer returns the endpoint's labels for a container's labels, and the reasons why others with the prefix are
// invalid.
func FromContainer(container map[string]string) (map[string]string, []string) {
	wanted := map[string]string{}
	var invalid []string
	for name, value := range container {
		key, ours := strings.CutPrefix(name, Prefix)
		if !ours {
			continue
		}
		problems := validation.IsQualifiedName(key)
		if strings.HasPrefix(key, reservedPrefix) {
			problems = append(problems, "names that start with "+reservedPrefix+" are Calico's own")
		}
		for _, problem := range validation.IsValidLabelValue(value) {
			problems = append(problems, "value "+value+": "+problem)
		}
		if len(problems) > 0 {
			invalid = append(invalid, name+": "+strings.Join(problems, "; "))
			continue
		}
		wanted[key] = value
	}
	return wanted, invalid
}
