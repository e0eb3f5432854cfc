// Package observe shows on localhost how the driver does: /readiness for gates and people, /metrics in Prometheus'
// text format. It owes that asking never waits for anything else than the datastore, and that only for a moment.
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

// patience bounds how long /readiness waits for the datastore.
const patience = 3 * time.Second

// buckets are the upper bounds in seconds of the histogram of calls.
var buckets = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}

type histogram struct {
	counts []uint64
	count  uint64
	sum    float64
}

// Record counts what the driver does. It is safe for concurrent use.
type Record struct {
	// Version of the driver.
	Version string
	// Datastore asks the datastore for this node and tells what is wrong.
	Datastore func(ctx context.Context) error

	mutex      sync.Mutex
	calls      map[string]*histogram
	failures   map[string]uint64
	mended     map[string]uint64
	reconciled time.Time
	problem    string
}

// Call counts a call of the plugin API.
func (r *Record) Call(call string, took time.Duration, err error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.calls == nil {
		r.calls, r.failures = map[string]*histogram{}, map[string]uint64{}
	}
	h := r.calls[call]
	if h == nil {
		h = &histogram{counts: make([]uint64, len(buckets))}
		r.calls[call] = h
		r.failures[call] = 0
	}
	h.count++
	h.sum += took.Seconds()
	for i, bound := range buckets {
		if took.Seconds() <= bound {
			h.counts[i]++
		}
	}
	if err != nil {
		r.failures[call]++
	}
}

// Reconciled notes the outcome of a reconciliation.
func (r *Record) Reconciled(mended map[string]int, err error) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if r.mended == nil {
		r.mended = map[string]uint64{}
	}
	for kind, count := range mended {
		r.mended[kind] += uint64(count)
	}
	r.problem = ""
	if err != nil {
		r.problem = err.Error()
		return
	}
	r.reconciled = time.Now()
}

// Handler serves the pages.
func (r *Record) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readiness", r.readiness)
	mux.HandleFunc("GET /metrics", r.metrics)
	return mux
}

// readiness answers 200 when the driver can give a container an address. Docker need not run for that: it starts
// after the driver.
func (r *Record) readiness(w http.ResponseWriter, request *http.Request) {
	ctx, cancel := context.WithTimeout(request.Context(), patience)
	defer cancel()
	status, datastore := http.StatusOK, "ok"
	if err := r.Datastore(ctx); err != nil {
		status, datastore = http.StatusServiceUnavailable, err.Error()
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	reconciled := "not yet"
	if !r.reconciled.IsZero() {
		reconciled = r.reconciled.UTC().Format(time.RFC3339)
	}
	if r.problem != "" {
		reconciled += " (last try: " + r.problem + ")"
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, "version: %s\ndatastore: %s\nreconciled: %s\n", r.Version, datastore, reconciled)
}

func (r *Record) metrics(w http.ResponseWriter, request *http.Request) {
	ctx, cancel := context.WithTimeout(request.Context(), patience)
	defer cancel()
	up := 1
	if r.Datastore(ctx) != nil {
		up = 0
	}
	r.mutex.Lock()
	defer r.mutex.Unlock()
	var b strings.Builder
	family(&b, "build_info", "gauge", "The driver's version.")
	fmt.Fprintf(&b, "calico_docker_build_info{version=%q} 1\n", r.Version)
	family(&b, "datastore_up", "gauge", "Whether the datastore answers and has this node.")
	fmt.Fprintf(&b, "calico_docker_datastore_up %d\n", up)
	family(&b, "call_seconds", "histogram", "Time of the calls of Docker's plugin API.")
	for _, call := range slices.Sorted(maps.Keys(r.calls)) {
		h := r.calls[call]
		for i, bound := range buckets {
			fmt.Fprintf(&b, "calico_docker_call_seconds_bucket{call=%q,le=\"%g\"} %d\n", call, bound, h.counts[i])
		}
		fmt.Fprintf(&b, "calico_docker_call_seconds_bucket{call=%q,le=\"+Inf\"} %d\n", call, h.count)
		fmt.Fprintf(&b, "calico_docker_call_seconds_sum{call=%q} %g\n", call, h.sum)
		fmt.Fprintf(&b, "calico_docker_call_seconds_count{call=%q} %d\n", call, h.count)
	}
	family(&b, "call_failures_total", "counter", "Calls that were refused.")
	for _, call := range slices.Sorted(maps.Keys(r.failures)) {
		fmt.Fprintf(&b, "calico_docker_call_failures_total{call=%q} %d\n", call, r.failures[call])
	}
	family(&b, "mended_total", "counter", "What reconciliation mended.")
	for _, kind := range slices.Sorted(maps.Keys(r.mended)) {
		fmt.Fprintf(&b, "calico_docker_mended_total{what=%q} %d\n", kind, r.mended[kind])
	}
	family(&b, "reconciled_timestamp_seconds", "gauge", "When Docker, endpoints and addresses last agreed.")
	var at float64
	if !r.reconciled.IsZero() {
		at = float64(r.reconciled.UnixMilli()) / 1000
	}
	fmt.Fprintf(&b, "calico_docker_reconciled_timestamp_seconds %.3f\n", at)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	// A reader that hung up gets no answer; there is nobody to tell.
	_, _ = w.Write([]byte(b.String()))
}

func family(b *strings.Builder, name, kind, help string) {
	fmt.Fprintf(b, "# HELP calico_docker_%s %s\n# TYPE calico_docker_%s %s\n", name, help, name, kind)
}
