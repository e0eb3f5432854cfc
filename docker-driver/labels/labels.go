// Package labels carries containers' labels to their endpoints, where Calico's policies select by them. It owes that
// a label is there within a second of the container's start, and else as soon as it can be written.
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
)

// Prefix starts the containers' labels that become labels of the endpoint, without it.
const Prefix = "org.projectcalico.label."

// reserved labels are Calico's own.
const reserved = "projectcalico.org/"

// Engine is what is asked of Docker.
type Engine interface {
	Container(ctx context.Context, id string) (engine.Container, error)
	Running(ctx context.Context) ([]string, error)
	Watch(ctx context.Context, subscribed func(), attached func(containerID string)) error
}

// Endpoints is where labels are written.
type Endpoints interface {
	Identify(ctx context.Context, endpointID, containerID, name string, labels map[string]string) error
}

// Follower follows Docker's events.
type Follower struct {
	Engine    Engine
	Endpoints Endpoints
	Datastore datastore.Patience
	// Subscribed is told whenever the engine has begun to send events, so that it can be asked.
	Subscribed func()
	// Retry is when labels that could not be written are written again.
	Retry time.Duration
	Log   *slog.Logger

	wanted chan struct{}
}

// New makes a follower of its parts.
func New(parts Follower) *Follower {
	parts.wanted = make(chan struct{}, 1)
	return &parts
}

// Again wants the labels of all running containers written once more.
func (f *Follower) Again() {
	select {
	case f.wanted <- struct{}{}:
	default:
	}
}

// later has labels written that now cannot be: policies that select by them let pass what they should not.
func (f *Follower) later() { time.AfterFunc(f.Retry, f.Again) }

// again is the pause before an engine that went away is asked again.
const again = time.Second

// parallel bounds how many containers are looked at at once. A container that is starting answers only when it has
// started; others must not wait for it.
const parallel = 16

// Run follows the events until the context ends.
func (f *Follower) Run(ctx context.Context) {
	slots := make(chan struct{}, parallel)
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
			case <-f.wanted:
				f.catchUp(ctx, attached)
			case <-ctx.Done():
				return
			}
		}
	}()
	for ctx.Err() == nil {
		err := f.Engine.Watch(ctx, func() {
			f.Subscribed()
			f.Again()
		}, attached)
		f.Log.Debug("Docker's events", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
}

// catchUp looks at all running containers, some of which may have started while nobody listened.
func (f *Follower) catchUp(ctx context.Context, attached func(string)) {
	ids, err := f.Engine.Running(ctx)
	if err != nil {
		f.Log.Warn("labels of containers that are running already are looked at later", "error", err)
		f.later()
		return
	}
	for _, id := range ids {
		attached(id)
	}
}

func (f *Follower) apply(ctx context.Context, containerID string) {
	container, err := f.Engine.Container(ctx, containerID)
	if err != nil {
		if !errors.Is(err, engine.ErrAbsent) {
			f.Log.Warn("a container's labels are not known yet", "container", containerID, "error", err)
			f.later()
		}
		return
	}
	wanted, refused := Endpoint(container.Labels)
	for _, reason := range refused {
		f.Log.Warn("label left out", "container", container.Name, "reason", reason)
	}
	for _, endpointID := range container.Endpoints {
		err := f.Datastore.Do(ctx, "label the endpoint of container "+container.Name, func(ctx context.Context) error {
			err := f.Endpoints.Identify(ctx, endpointID, container.ID, container.Name, wanted)
			if datastore.Absent(err) {
				// An endpoint of another driver's network, or of a container that has gone.
				return nil
			}
			return err
		})
		if err != nil {
			f.Log.Warn("labels not written yet", "container", container.Name, "endpoint", endpointID, "error", err)
			f.later()
		}
	}
}

// Endpoint returns the endpoint's labels for a container's, and why others with the prefix cannot be any.
func Endpoint(container map[string]string) (map[string]string, []string) {
	wanted := map[string]string{}
	var refused []string
	for name, value := range container {
		key, ours := strings.CutPrefix(name, Prefix)
		if !ours {
			continue
		}
		problems := validation.IsQualifiedName(key)
		if strings.HasPrefix(key, reserved) {
			problems = append(problems, "names that start with "+reserved+" are Calico's own")
		}
		for _, problem := range validation.IsValidLabelValue(value) {
			problems = append(problems, "value "+value+": "+problem)
		}
		if len(problems) > 0 {
			refused = append(refused, name+": "+strings.Join(problems, "; "))
			continue
		}
		wanted[key] = value
	}
	return wanted, refused
}
