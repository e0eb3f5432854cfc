//go:build engine

package conformance

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkStart starts containers in turn on the engine's default bridge, on a user-defined bridge, and on a Calico
// network. It reports the medians of the durations and of the ratios. The user-defined bridge is included because
// engines start their resolver on every network except the default one, which is slow on 20.10. With -v it prints the
// duration of each start in µs, which the lab's bench reads.
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
	const own = "bridge-of-ones-own"
	run("network", "create", own)
	b.Cleanup(func() { run("network", "rm", "netv", own) })
	networks := []string{"bridge", own, "netv"}
	took := map[string][]float64{}
	var besideBridge, besideOwn []float64
	for i := range b.N {
		for j := range networks {
			network := networks[(i+j)%len(networks)]
			name := fmt.Sprintf("%s-%d", network, i)
			run("create", "--name", name, "--network", network, "--stop-signal", "KILL", "box", "sleep", "100000")
			started := time.Now()
			run("start", name)
			elapsed := time.Since(started)
			if testing.Verbose() {
				fmt.Println(network, elapsed.Microseconds())
			}
			took[network] = append(took[network], float64(elapsed.Microseconds())/1000)
			run("rm", "-f", name)
		}
		besideBridge = append(besideBridge, took["netv"][i]/took["bridge"][i])
		besideOwn = append(besideOwn, took["netv"][i]/took[own][i])
	}
	for network, all := range took {
		b.ReportMetric(median(all), network+"-ms")
	}
	b.ReportMetric(median(besideBridge), "beside-bridge")
	b.ReportMetric(median(besideOwn), "beside-own")
	b.ReportMetric(0, "ns/op")
}

func median(all []float64) float64 {
	sorted := slices.Sorted(slices.Values(all))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}
