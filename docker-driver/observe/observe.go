// Package observe serves the driver's state on localhost: /readiness for readiness gates, /metrics in Prometheus' text
// format. Both wait for the datastore only, with a time-out.
package observe

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// datastoreTimeout limits how long a page waits for the datastore.
const datastoreTimeout = 3 * time.Second

// buckets are the upper bounds of the histogram of call durations, in seconds.
var buckets = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

type histogram struct {
	counts []uint64
	count  uint64
	sum    float64
}

// Status collects the driver's metrics and state. It is safe for concurrent use.
type Status struct {
	// Version of the driver.
	Version string
	// Datastore reads this node from the datastore.
	Datastore func(ctx context.Context) error

	mutex      sync.Mutex
	calls      map[string]*histogram
	failures   map[string]uint64
	repaired   map[string]uint64
	reconciled time.Time
	problem    string
}

// Call records a call of the plugin API.
func (s *Status) Call(call string, took time.Duration, err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.calls == nil {
		s.calls, s.failures = map[string]*histogram{}, map[string]uint64{}
	}
	h := s.calls[call]
	if h == nil {
		h = &histogram{counts: make([]uint64, len(buckets))}
		s.calls[call] = h
		s.failures[call] = 0
	}
	h.count++
	h.sum += took.Seconds()
	for i, bound := range buckets {
		if took.Seconds() <= bound {
			h.counts[i]++
		}
	}
	if err != nil {
		s.failures[call]++
	}
}

// Reconciled records the result of a reconciliation: the number of repairs by kind, or an error.
func (s *Status) Reconciled(repaired map[string]int, err error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.repaired == nil {
		s.repaired = map[string]uint64{}
	}
	for kind, count := range repaired {
		s.repaired[kind] += uint64(count)
	}
	s.problem = ""
	if err != nil {
		s.problem = err.Error()
		return
	}
	s.reconciled = time.Now()
}

// Handler serves the pages.
func (s *Status) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readiness", s.readiness)
	mux.HandleFunc("GET /metrics", s.metrics)
	return mux
}

// readiness responds with 200 when the driver can assign addresses. Docker need not run, because it starts after the driver.
func (s *Status) readiness(w http.ResponseWriter, request *http.Request) {
	ctx, cancel := context.WithTimeout(request.Context(), datastoreTimeout)
	defer cancel()
	status, datastore := http.StatusOK, "ok"
	if err := s.Datastore(ctx); err != nil {
		status, datastore = http.StatusServiceUnavailable, err.Error()
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	reconciled := "not yet"
	if !s.reconciled.IsZero() {
		reconciled = s.reconciled.UTC().Format(time.RFC3339)
	}
	if s.problem != "" {
		reconciled += " (last try: " + s.problem + ")"
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, "version: %s\ndatastore: %s\nreconciled: %s\n", s.Version, datastore, reconciled)
}

func (s *Status) metrics(w http.ResponseWriter, request *http.Request) {
	ctx, cancel := context.WithTimeout(request.Context(), datastoreTimeout)
	defer cancel()
	up := 1
	if s.Datastore(ctx) != nil {
		up = 0
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var b strings.Builder
	family(&b, "build_info", "gauge", "The driver's version.")
	fmt.Fprintf(&b, "calico_docker_build_info{version=%q} 1\n", s.Version)
	family(&b, "datastore_up", "gauge", "Whether the datastore answers and contains this node.")
	fmt.Fprintf(&b, "calico_docker_datastore_up %d\n", up)
	family(&b, "call_seconds", "histogram", "Duration of calls of Docker's plugin API.")
	for _, call := range slices.Sorted(maps.Keys(s.calls)) {
		h := s.calls[call]
		for i, bound := range buckets {
			fmt.Fprintf(&b, "calico_docker_call_seconds_bucket{call=%q,le=\"%g\"} %d\n", call, bound, h.counts[i])
		}
		fmt.Fprintf(&b, "calico_docker_call_seconds_bucket{call=%q,le=\"+Inf\"} %d\n", call, h.count)
		fmt.Fprintf(&b, "calico_docker_call_seconds_sum{call=%q} %g\n", call, h.sum)
		fmt.Fprintf(&b, "calico_docker_call_seconds_count{call=%q} %d\n", call, h.count)
	}
	family(&b, "call_failures_total", "counter", "Calls that failed.")
	for _, call := range slices.Sorted(maps.Keys(s.failures)) {
		fmt.Fprintf(&b, "calico_docker_call_failures_total{call=%q} %d\n", call, s.failures[call])
	}
	family(&b, "mended_total", "counter", "Repairs by reconciliation, by kind.")
	for _, kind := range slices.Sorted(maps.Keys(s.repaired)) {
		fmt.Fprintf(&b, "calico_docker_mended_total{what=%q} %d\n", kind, s.repaired[kind])
	}
	family(&b, "reconciled_timestamp_seconds", "gauge", "Time of the last successful reconciliation.")
	var at float64
	if !s.reconciled.IsZero() {
		at = float64(s.reconciled.UnixMilli()) / 1000
	}
	fmt.Fprintf(&b, "calico_docker_reconciled_timestamp_seconds %.3f\n", at)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	// An error means that the client closed the connection.
	_, _ = w.Write([]byte(b.String()))
}

func family(b *strings.Builder, name, kind, help string) {
	fmt.Fprintf(b, "# HELP calico_docker_%s %s\n# TYPE calico_docker_%s %s\n", name, help, name, kind)
}
