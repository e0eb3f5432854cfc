//go:build engine

package conformance

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const statusURL = "http://127.0.0.1:9101"

func page(t *testing.T, path string) (int, string) {
	t.Helper()
	var status int
	var body []byte
	must(t, until(func() error {
		response, err := http.Get(statusURL + path)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		status = response.StatusCode
		body, err = io.ReadAll(response.Body)
		return err
	}))
	return status, string(body)
}

// sample matches a sample in Prometheus' text format.
var sample = regexp.MustCompile(`^([a-z_]+)(\{[a-z_]+="[^"]*"(?:,[a-z_]+="[^"]*")*\})? (\S+)$`)

func metrics(t *testing.T) map[string]float64 {
	t.Helper()
	status, text := page(t, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics answers %d: %s", status, text)
	}
	values := map[string]float64{}
	typed := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if words := strings.Fields(line); strings.HasPrefix(line, "#") {
			typed[words[2]] = true
			continue
		}
		parts := sample.FindStringSubmatch(line)
		if parts == nil {
			t.Fatalf("not a sample: %q", line)
		}
		family := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(parts[1], "")
		if !typed[parts[1]] && !typed[family] {
			t.Errorf("no type before %q", line)
		}
		value, err := strconv.ParseFloat(parts[3], 64)
		must(t, err)
		values[parts[1]+parts[2]] = value
	}
	return values
}

func TestMetrics(t *testing.T) {
	netv(t)
	container(t, "c1", "--network", "netv", "--ip", "192.168.0.100")
	before := metrics(t)
	refused(t, "taken by container c1", "run", "--rm", "--network", "netv", "--ip", "192.168.0.100", "box", "true")
	container(t, "c2", "--network", "netv")
	docker(t, "rm", "-f", "c2")
	after := metrics(t)
	for name, more := range map[string]float64{
		`calico_docker_call_failures_total{call="IpamDriver.RequestAddress"}`:    1,
		`calico_docker_call_seconds_count{call="IpamDriver.RequestAddress"}`:     2,
		`calico_docker_call_seconds_count{call="NetworkDriver.CreateEndpoint"}`:  1,
		`calico_docker_call_seconds_count{call="NetworkDriver.Join"}`:            1,
		`calico_docker_call_seconds_bucket{call="NetworkDriver.Join",le="+Inf"}`: 1,
		`calico_docker_call_seconds_count{call="NetworkDriver.Leave"}`:           1,
		`calico_docker_call_seconds_count{call="NetworkDriver.DeleteEndpoint"}`:  1,
		`calico_docker_call_seconds_count{call="IpamDriver.ReleaseAddress"}`:     1,
	} {
		if got := after[name] - before[name]; got != more {
			t.Errorf("%s went from %g to %g, not by %g", name, before[name], after[name], more)
		}
	}
	for name, want := range map[string]float64{
		`calico_docker_build_info{version="` + version + `"}`: 1,
		"calico_docker_datastore_up":                          1,
	} {
		if got := after[name]; got != want {
			t.Errorf("%s is %g, not %g", name, got, want)
		}
	}
}

func TestReadiness(t *testing.T) {
	ready := func(want int, text string) {
		t.Helper()
		must(t, until(func() error {
			if status, body := page(t, "/readiness"); status != want || !strings.Contains(body, text) {
				return fmt.Errorf("/readiness answers %d, %q, not %d with %q", status, body, want, text)
			}
			return nil
		}))
	}
	ready(http.StatusOK, "version: "+version+"\ndatastore: ok\nreconciled: 2")
	must(t, lab.etcd.signal(syscall.SIGSTOP))
	stopped := true
	t.Cleanup(func() {
		if stopped {
			must(t, lab.etcd.signal(syscall.SIGCONT))
		}
	})
	ready(http.StatusServiceUnavailable, "datastore: ")
	if up := metrics(t)["calico_docker_datastore_up"]; up != 0 {
		t.Errorf("datastore_up is %g", up)
	}
	must(t, lab.etcd.signal(syscall.SIGCONT))
	stopped = false
	ready(http.StatusOK, "datastore: ok")
}

func TestVersion(t *testing.T) {
	output, err := exec.Command(filepath.Join(lab.folder, "calico-docker-driver"), "--version").Output()
	if err != nil || strings.TrimSpace(string(output)) != version {
		t.Errorf("--version prints %q, %v", output, err)
	}
}

// field matches a key=value pair of slog.
var field = regexp.MustCompile(`([a-z]+)=("(?:[^"\\]|\\.)*"|[^ "]*)`)

// TestLogs reads the driver's log: every line has time, level and message, and calls have a duration.
func TestLogs(t *testing.T) {
	netv(t)
	container(t, "c1", "--network", "netv", "--ip", "192.168.0.100")
	refused(t, "taken by container c1", "run", "--rm", "--network", "netv", "--ip", "192.168.0.100", "box", "true")
	file, err := os.Open(lab.driver.output)
	must(t, err)
	defer file.Close()
	calls := map[string]bool{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := map[string]string{}
		for _, pair := range field.FindAllStringSubmatch(lines.Text(), -1) {
			fields[pair[1]] = pair[2]
		}
		if fields["time"] == "" || fields["level"] == "" || fields["msg"] == "" {
			t.Fatalf("not a structured line: %s", lines.Text())
		}
		if fields["call"] != "" && fields["took"] == "" {
			t.Errorf("a call without a duration: %s", lines.Text())
		}
		calls[fields["call"]] = true
	}
	must(t, lines.Err())
	for _, call := range []string{"IpamDriver.RequestAddress", "NetworkDriver.Join"} {
		if !calls[call] {
			t.Errorf("%s is not in the log", call)
		}
	}
}
