package observe_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"calico-lab/docker-driver/observe"
)

func get(s *observe.Status, path string) (int, string) {
	recorder := httptest.NewRecorder()
	s.Handler().ServeHTTP(recorder, httptest.NewRequest("GET", path, nil))
	return recorder.Code, recorder.Body.String()
}

func TestReadiness(t *testing.T) {
	var failure error
	status := &observe.Status{Version: "v1", Datastore: func(context.Context) error { return failure }}
	code, body := get(status, "/readiness")
	if code != 200 || !strings.HasSuffix(body, "reconciled: not yet\n") {
		t.Errorf("%d %s", code, body)
	}
	status.Reconciled(nil, errors.New("etcd did not answer"))
	if _, body := get(status, "/readiness"); !strings.HasSuffix(body, "not yet (last try: etcd did not answer)\n") {
		t.Error(body)
	}
	status.Reconciled(nil, nil)
	if code, body := get(status, "/readiness"); code != 200 || strings.Contains(body, "not yet") {
		t.Errorf("%d %s", code, body)
	}
	status.Reconciled(nil, errors.New("Docker does not run"))
	failure = errors.New("node a0 does not exist")
	code, body = get(status, "/readiness")
	if code != 503 || !strings.Contains(body, failure.Error()) || !strings.Contains(body, "Docker does not run") {
		t.Errorf("%d %s", code, body)
	}
}

func TestMetrics(t *testing.T) {
	status := &observe.Status{Version: "v1", Datastore: func(context.Context) error { return nil }}
	status.Call("NetworkDriver.Join", 20*time.Millisecond, nil)
	status.Call("NetworkDriver.Join", 2*time.Second, errors.New("failed"))
	status.Reconciled(map[string]int{"released address": 2}, nil)
	status.Reconciled(map[string]int{"released address": 1}, nil)
	_, body := get(status, "/metrics")
	for _, line := range []string{
		`calico_docker_build_info{version="v1"} 1`,
		`calico_docker_datastore_up 1`,
		`calico_docker_call_seconds_bucket{call="NetworkDriver.Join",le="0.01"} 0`,
		`calico_docker_call_seconds_bucket{call="NetworkDriver.Join",le="0.025"} 1`,
		`calico_docker_call_seconds_bucket{call="NetworkDriver.Join",le="+Inf"} 2`,
		`calico_docker_call_seconds_count{call="NetworkDriver.Join"} 2`,
		`calico_docker_call_failures_total{call="NetworkDriver.Join"} 1`,
		`calico_docker_mended_total{what="released address"} 3`,
	} {
		if !strings.Contains(body, "\n"+line+"\n") {
			t.Errorf("no line %s in\n%s", line, body)
		}
	}
}
