//go:build engine

package conformance

import (
	"context"
	"net"
	"net/http"
	"os/exec"
	"strings"

	"calico-lab/docker-driver/driver"
	"calico-lab/docker-driver/engine"
)

const dockerSocket = "/var/run/docker.sock"

var api = &http.Client{Transport: &http.Transport{
	DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", dockerSocket)
	},
}}

func dockerEndpoints() (map[string]bool, error) {
	endpoints, _, err := engine.New(dockerSocket).Endpoints(context.Background(), driver.NetworkName)
	known := map[string]bool{}
	for id := range endpoints {
		known[id] = true
	}
	return known, err
}

// rules returns the driver's lines of the nat tables.
func rules() (string, error) {
	var lines []string
	for _, program := range []string{"iptables-save", "ip6tables-save"} {
		output, err := exec.Command(program, "-t", "nat").Output()
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(output)) {
			if strings.Contains(line, "DOCKER-CALICO") {
				lines = append(lines, line)
			}
		}
	}
	return strings.Join(lines, ""), nil
}
