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

func get(r *observe.Record, path string) (int, string) {
	recorder := httptest.NewRecorder()
	r.Handler().ServeHTTP(recorder, httptest.NewRequest("GET", path, nil))
	return recorder.Code, recorder.Body.String()
}

func TestReadiness(t *testing.T) {
	var wrong error
	record := &observe.Record{Version: "v1", Datastore: func(context.Context) error { return wrong }}
	code, body := get(record, "/readiness")
	if code != 200 || !strings.HasSuffix(body, "reconciled: not yet\n") {
		t.Errorf("%d %s", code, body)
	}
	record.Reconciled(nil, errors.New("etcd gave no answer"))
	if _, body := get(record, "/readiness"); !strings.HasSuffix(body, "not yet (last try: etcd gave no answer)\n") {
		t.Error(body)
	}
	record.Reconciled(nil, nil)
	if code, body := get(record, "/readiness"); code != 200 || strings.Contains(body, "not yet") {
		t.Errorf("%d %s", code, body)
	}
	record.Reconciled(nil, errors.New("Docker is silent"))
	wrong = errors.New("node a0 is not there")
	code, body = get(record, "/readiness")
	if code != 503 || !strings.Contains(body, wrong.Error()) || !strings.Contains(body, "Docker is silent") {
		t.Errorf("%d %s", code, body)
	}
}

func TestMetrics(t *testing.T) {
	record := &observe.Record{Version: "v1", Datastore: func(context.Context) error { return nil }}
	record.Call("NetworkDriver.Join", 20*time.Millisecond, nil)
	record.Call("NetworkDriver.Join", 2*time.Second, errors.New("no"))
	record.Reconciled(map[string]int{"released address": 2}, nil)
	record.Reconciled(map[string]int{"released address": 1}, nil)
	_, body := get(record, "/metrics")
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
