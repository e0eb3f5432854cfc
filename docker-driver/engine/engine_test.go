package engine_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"calico-lab/docker-driver/engine"
)

// serve starts an engine with the responses of Docker 20.10 by path.
func serve(t *testing.T, responses map[string]string) *engine.Engine {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		response, known := responses[r.URL.Path]
		switch {
		case !known:
			http.Error(w, `{"message":"no such thing"}`, http.StatusNotFound)
		case response == "broken":
			http.Error(w, `{"message":"it is broken"}`, http.StatusInternalServerError)
		default:
			fmt.Fprint(w, response)
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return engine.New(socket)
}

func TestEndpoints(t *testing.T) {
	docker := serve(t, map[string]string{
		"/networks": `[{"Id":"n1","Driver":"calico"},{"Id":"n2","Driver":"calico"},{"Id":"n3","Driver":"bridge"},
			{"Id":"gone","Driver":"calico"}]`,
		"/networks/n1": `{"Containers":{"c":{"EndpointID":"e1","MacAddress":"02:42:c0:a8:00:64",
			"IPv4Address":"192.168.0.100/32","IPv6Address":""},"ep-e2":{"EndpointID":"e2","IPv4Address":"192.168.0.2/32"}}}`,
		"/networks/n2": `{"Containers":{}}`,
	})
	endpoints, networks, err := docker.Endpoints(t.Context(), "calico")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]engine.Endpoint{
		"e1": {ID: "e1", NetworkID: "n1", MacAddress: "02:42:c0:a8:00:64", IPv4Address: "192.168.0.100/32"},
		"e2": {ID: "e2", NetworkID: "n1", IPv4Address: "192.168.0.2/32"},
	}
	if !reflect.DeepEqual(endpoints, want) {
		t.Errorf("endpoints %+v", endpoints)
	}
	if !slices.Equal(networks, []string{"n1", "n2", "gone"}) {
		t.Errorf("networks %v", networks)
	}
}

func TestEndpointsEngineFails(t *testing.T) {
	for name, responses := range map[string]map[string]string{
		"networks":  {"/networks": "broken"},
		"a network": {"/networks": `[{"Id":"n1","Driver":"calico"}]`, "/networks/n1": "broken"},
	} {
		_, _, err := serve(t, responses).Endpoints(t.Context(), "calico")
		if err == nil || !strings.Contains(err.Error(), "it is broken") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, _, err := engine.New("/nonexistent.sock").Endpoints(t.Context(), "calico"); err == nil {
		t.Error("no error from an engine that does not run")
	}
}

func TestContainer(t *testing.T) {
	docker := serve(t, map[string]string{
		"/containers/c/json": `{"Id":"c","Name":"/web","Config":{"Labels":{"a":"b"}},"NetworkSettings":{"Networks":{
			"netv":{"EndpointID":"e1"},"none":{"EndpointID":""}}}}`,
		"/containers/json": `[{"Id":"c"},{"Id":"d"}]`,
	})
	container, err := docker.Container(t.Context(), "c")
	want := engine.Container{ID: "c", Name: "web", Labels: map[string]string{"a": "b"}, Endpoints: []string{"e1"}}
	if err != nil || !reflect.DeepEqual(container, want) {
		t.Errorf("container %+v, %v", container, err)
	}
	if _, err := docker.Container(t.Context(), "gone"); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("error %v", err)
	}
	if ids, err := docker.Running(t.Context()); err != nil || !slices.Equal(ids, []string{"c", "d"}) {
		t.Errorf("running %v, %v", ids, err)
	}
}

func TestWatch(t *testing.T) {
	docker := serve(t, map[string]string{"/events": `
		{"Type":"container","Action":"start","Actor":{"ID":"c","Attributes":{"name":"web"}}}
		{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"d"}}}`})
	var seen []string
	err := docker.Watch(t.Context(), func() { seen = append(seen, "subscribed") },
		func(id string) { seen = append(seen, id) })
	if err == nil || !slices.Equal(seen, []string{"subscribed", "c", "d"}) {
		t.Errorf("seen %v, %v", seen, err)
	}
}
