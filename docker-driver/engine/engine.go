// Package engine reads the networks, endpoints, containers and events of this host's Docker engine. Each request has a
// time-out.
//
// It uses five GET requests over a unix socket. Docker's client module would add some forty modules and several megabytes.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// requestTimeout limits one request. The engine does not answer until it has restored its containers.
const requestTimeout = 20 * time.Second

// errorBytes limits how much of an error response is read.
const errorBytes = 4096

// ErrNotFound is returned for a network or container that the engine does not have.
var ErrNotFound = errors.New("the engine does not have it")

// Engine is a client of Docker's API.
type Engine struct {
	socket string
	client *http.Client
}

// New returns a client for the API's unix socket.
func New(socket string) *Engine {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", socket)
		},
		MaxIdleConns:    2,
		IdleConnTimeout: time.Minute,
	}
	return &Engine{socket: socket, client: &http.Client{Transport: transport}}
}

// Endpoint is an endpoint of a Docker network.
type Endpoint struct {
	ID          string `json:"EndpointID"`
	NetworkID   string `json:"-"`
	MacAddress  string
	IPv4Address string
	IPv6Address string
}

// Endpoints returns all endpoints of the driver's networks by ID, and the networks' IDs.
func (e *Engine) Endpoints(ctx context.Context, driver string) (map[string]Endpoint, []string, error) {
	var networks []struct{ ID, Driver string }
	filter, err := json.Marshal(map[string][]string{"driver": {driver}})
	if err != nil {
		return nil, nil, err
	}
	if err := e.get(ctx, "/networks", url.Values{"filters": {string(filter)}}, &networks); err != nil {
		return nil, nil, fmt.Errorf("list Docker's networks: %w", err)
	}
	endpoints := map[string]Endpoint{}
	var ids []string
	for _, network := range networks {
		if network.Driver != driver {
			continue
		}
		ids = append(ids, network.ID)
		var detail struct{ Containers map[string]Endpoint }
		err := e.get(ctx, "/networks/"+network.ID, nil, &detail)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("inspect Docker network %s: %w", network.ID, err)
		}
		for _, endpoint := range detail.Containers {
			endpoint.NetworkID = network.ID
			endpoints[endpoint.ID] = endpoint
		}
	}
	return endpoints, ids, nil
}

// Container is a container with the IDs of its endpoints.
type Container struct {
	ID, Name  string
	Labels    map[string]string
	Endpoints []string
}

// Container returns the container.
func (e *Engine) Container(ctx context.Context, id string) (Container, error) {
	var detail struct {
		ID, Name        string
		Config          struct{ Labels map[string]string }
		NetworkSettings struct {
			Networks map[string]struct{ EndpointID string }
		}
	}
	if err := e.get(ctx, "/containers/"+id+"/json", nil, &detail); err != nil {
		return Container{}, fmt.Errorf("inspect Docker container %s: %w", id, err)
	}
	container := Container{ID: detail.ID, Name: strings.TrimPrefix(detail.Name, "/"), Labels: detail.Config.Labels}
	for _, network := range detail.NetworkSettings.Networks {
		if network.EndpointID != "" {
			container.Endpoints = append(container.Endpoints, network.EndpointID)
		}
	}
	return container, nil
}

// Running returns the IDs of the running containers.
func (e *Engine) Running(ctx context.Context) ([]string, error) {
	var list []struct{ ID string }
	if err := e.get(ctx, "/containers/json", nil, &list); err != nil {
		return nil, fmt.Errorf("list Docker's containers: %w", err)
	}
	ids := make([]string, len(list))
	for i, each := range list {
		ids[i] = each.ID
	}
	return ids, nil
}

// Watch calls subscribed when the event stream is open, and then attached with the ID of each container that is started,
// connected to a network, or renamed. It returns an error when the stream ends.
func (e *Engine) Watch(ctx context.Context, subscribed func(), attached func(containerID string)) error {
	filter, err := json.Marshal(map[string][]string{
		"type":  {"container", "network"},
		"event": {"start", "rename", "connect"},
	})
	if err != nil {
		return err
	}
	body, err := e.open(ctx, "/events", url.Values{"filters": {string(filter)}})
	if err != nil {
		return fmt.Errorf("subscribe to Docker's events: %w", err)
	}
	defer body.Close()
	subscribed()
	decoder := json.NewDecoder(body)
	for {
		var event struct {
			Type  string
			Actor struct {
				ID         string
				Attributes map[string]string
			}
		}
		if err := decoder.Decode(&event); err != nil {
			return fmt.Errorf("the stream of Docker's events ended: %w", err)
		}
		if event.Type == "network" {
			attached(event.Actor.Attributes["container"])
		} else {
			attached(event.Actor.ID)
		}
	}
}

func (e *Engine) get(ctx context.Context, path string, query url.Values, into any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	body, err := e.open(ctx, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(body).Decode(into)
}

func (e *Engine) open(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	// HTTP requires a host name. Paths without a version use the engine's own API version.
	address := url.URL{Scheme: "http", Host: "docker", Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, err
	}
	response, err := e.client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		return response.Body, nil
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotFound {
		return nil, ErrNotFound
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, errorBytes))
	return nil, fmt.Errorf("the engine at %s returned %s: %s", e.socket, response.Status, strings.TrimSpace(string(text)))
}
