//go:build engine

package conformance

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkStart starts containers in pairs, one on the engine's own bridge and one on a Calico network, each first in
// every other pair. It reports the medians and the median of the pairs' ratios.
//
//	go test -tags engine -run '^$' -bench Start -benchtime 40x ./conformance
func BenchmarkStart(b *testing.B) {
	run := func(arguments ...string) {
		b.Helper()
		if _, err := lab.run(arguments...); err != nil {
			b.Fatal(err)
		}
	}
	run("network", "create", "-d", "calico", "--ipam-driver", "calico-ipam", "--subnet", "192.168.0.0/16", "netv")
	b.Cleanup(func() { run("network", "rm", "netv") })
	networks := []string{"bridge", "netv"}
	took := map[string][]float64{}
	var ratios []float64
	for i := range b.N {
		for j := range networks {
			network := networks[(i+j)%len(networks)]
			name := fmt.Sprintf("%s-%d", network, i)
			run("create", "--name", name, "--network", network, "--stop-signal", "KILL", "box", "sleep", "100000")
			started := time.Now()
			run("start", name)
			took[network] = append(took[network], float64(time.Since(started).Microseconds())/1000)
			run("rm", "-f", name)
		}
		ratios = append(ratios, took["netv"][i]/took["bridge"][i])
	}
	for network, all := range took {
		b.ReportMetric(median(all), network+"-ms")
	}
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(0, "ns/op")
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
