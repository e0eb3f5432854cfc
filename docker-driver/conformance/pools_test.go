//go:build engine

package conformance

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	v3 "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	"github.com/projectcalico/calico/libcalico-go/lib/options"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/link"
)

// poolWithCIDR returns the IPPool with the CIDR, or nil.
func poolWithCIDR(t *testing.T, cidr string) *v3.IPPool {
	t.Helper()
	list, err := lab.client.IPPools().List(t.Context(), options.ListOptions{})
	must(t, err)
	for i := range list.Items {
		if list.Items[i].Spec.CIDR == cidr {
			return &list.Items[i]
		}
	}
	return nil
}

func TestPoolByName(t *testing.T) {
	createNetwork(t, "named", "--ipv6", "--ipam-opt", "org.projectcalico.pool=small,netv6", "-o",
		"com.docker.network.driver.mtu=1400")
	// The pools and options are visible in docker network inspect.
	subnets := inspect(t, "{{range .IPAM.Config}}{{.Subnet}} {{end}}", "named")
	for _, want := range []string{"10.50.0.0/28", "fd00:50::/64"} {
		if !slices.Contains(strings.Fields(subnets), want) {
			t.Errorf("docker network inspect shows %s, not %s", subnets, want)
		}
	}
	for template, want := range map[string]string{
		"{{.Driver}} {{.IPAM.Driver}} {{.Scope}} {{.EnableIPv6}}": "calico calico-ipam local true",
		`{{index .IPAM.Options "org.projectcalico.pool"}}`:        "small,netv6",
		`{{index .Options "com.docker.network.driver.mtu"}}`:      "1400",
	} {
		if got := inspect(t, template, "named"); got != want {
			t.Errorf("docker network inspect -f %s shows %q, not %q", template, got, want)
		}
	}
	container(t, "c1", "--network", "named")
	container(t, "c2", "--network", "named")
	small, wide := netip.MustParsePrefix("10.50.0.0/28"), netip.MustParsePrefix("fd00:50::/64")
	shown := strings.Fields(inspect(t, "{{range .Containers}}{{.Name}} {{.IPv4Address}} {{.IPv6Address}} {{.MacAddress}} {{end}}",
		"named"))
	if len(shown) != 8 {
		t.Fatalf("docker network inspect shows the containers as %v", shown)
	}
	for each := range slices.Chunk(shown, 4) {
		v4, err := netip.ParsePrefix(each[1])
		must(t, err)
		v6, err := netip.ParsePrefix(each[2])
		must(t, err)
		if !small.Contains(v4.Addr()) || !wide.Contains(v6.Addr()) {
			t.Errorf("container %s has %s and %s", each[0], v4, v6)
		}
		if link := docker(t, "exec", each[0], "ip", "link", "show", "eth0"); !strings.Contains(link, each[3]) ||
			!strings.Contains(link, "mtu 1400") {
			t.Errorf("%s differs from docker network inspect, %s:\n%s", each[0], each[3], link)
		}
		ping(t, "c1", v6.Addr().String())
	}
	ping(t, "c1", address(t, "c2", "named").String())
	consistent(t)
}

// TestPoolByNameWithRoute has a route of this host in the pool. Engines of the 20.10 line then reject a pool requested
// by name and would request it again without end.
func TestPoolByNameWithRoute(t *testing.T) {
	netv(t)
	container(t, "c1", "--network", "netv")
	create := []string{"network", "create", "-d", "calico", "--ipam-driver", "calico-ipam", "--ipam-opt",
		"org.projectcalico.pool=netv", "again"}
	if _, message, err := attempt(create...); err == nil {
		docker(t, "network", "rm", "again")
	} else if !strings.Contains(message, "lies in it: add --subnet 192.168.0.0/16") {
		t.Errorf("docker %s: %v, %s", strings.Join(create, " "), err, message)
	}
	createNetwork(t, "again", "--ipam-opt", "org.projectcalico.pool=netv", "--subnet", "192.168.0.0/16")
	container(t, "c2", "--network", "again")
	ping(t, "c2", address(t, "c1", "netv").String())
	consistent(t)
}

func TestPoolRefused(t *testing.T) {
	const have = "; the enabled pools are: netv 192.168.0.0/16, netv6 fd00:50::/64, small 10.50.0.0/28"
	for want, arguments := range map[string]string{
		"lab is not the name of an enabled Calico IPPool" + have:                    "--ipam-opt org.projectcalico.pool=lab",
		"org.projectcalico.pool=small: the pool of --subnet 192.168.0.0/16 is netv": "--ipam-opt org.projectcalico.pool=small --subnet 192.168.0.0/16",
		"--ipam-opt colour: not an option":                                          "--ipam-opt colour=blue --subnet 192.168.0.0/16",
		"-o org.projectcalico.pool: Docker passes this option too late":             "-o org.projectcalico.pool=netv --subnet 192.168.0.0/16",
		"a block size is a prefix length from /20 to /32":                           "--ipam-opt org.projectcalico.blocksize=64 --subnet 10.70.0.0/24",
		"pool small 10.50.0.0/28 exists and has blocks of /29":                      "--ipam-opt org.projectcalico.blocksize=30 --subnet 10.50.0.0/28",
		"create IPPool docker-192-168-4-0-24 192.168.4.0/24: ":                      "--ipam-opt org.projectcalico.blocksize=28 --subnet 192.168.4.0/24",
		"create IPPool docker-10-70-0-0-28 10.70.0.0/28: ":                          "--ipam-opt org.projectcalico.blocksize=26 --subnet 10.70.0.0/28",
		"create IPPool No_Name 10.70.0.0/24: ":                                      "--ipam-opt org.projectcalico.blocksize=26 --ipam-opt org.projectcalico.pool=No_Name --subnet 10.70.0.0/24",
		"--gateway 10.70.0.1: a Calico network has no gateway address":              "--ipam-opt org.projectcalico.blocksize=26 --subnet 10.70.0.0/24 --gateway 10.70.0.1",
		"-o colour: not an option of a Calico network":                              "--ipam-opt org.projectcalico.blocksize=26 --subnet 10.70.0.0/24 -o colour=blue",
		"fd00:99::/64 is not an enabled Calico IPPool":                              "--ipam-opt org.projectcalico.blocksize=26 --subnet 10.70.0.0/24 --ipv6 --subnet fd00:99::/64",
	} {
		words := slices.Concat([]string{"network", "create", "-d", "calico", "--ipam-driver", "calico-ipam"},
			strings.Fields(arguments), []string{"n"})
		refused(t, want, words...)
	}
	// For some of these networks a pool was created before a later call failed.
	for _, cidr := range []string{"10.70.0.0/24", "10.70.0.0/28", "192.168.4.0/24"} {
		if pool := poolWithCIDR(t, cidr); pool != nil {
			t.Errorf("a network that was not created left IPPool %s", pool.Name)
		}
	}
}

func TestPoolCreatedAndDeleted(t *testing.T) {
	arguments := []string{"--subnet", "10.70.0.0/24", "--ipam-opt", "org.projectcalico.blocksize=28,124", "--ipv6",
		"--subnet", "fd00:70::/64", "--ipam-opt", "org.projectcalico.pool=shop,shop6"}
	t.Run("network", func(t *testing.T) {
		createNetwork(t, "one", arguments...)
		createNetwork(t, "two", arguments...)
		for cidr, want := range map[string]string{"10.70.0.0/24": "shop /28", "fd00:70::/64": "shop6 /124"} {
			pool := poolWithCIDR(t, cidr)
			if pool == nil {
				t.Fatalf("no IPPool %s", cidr)
			}
			if got := fmt.Sprintf("%s /%d", pool.Name, pool.Spec.BlockSize); got != want {
				t.Errorf("IPPool %s is %s, not %s", cidr, got, want)
			}
		}
		container(t, "c1", "--network", "one")
		container(t, "c2", "--network", "two", "--ip", "10.70.0.77")
		ping(t, "c1", "10.70.0.77")
		docker(t, "rm", "-f", "c2")
		docker(t, "network", "rm", "two")
		if poolWithCIDR(t, "10.70.0.0/24") == nil {
			t.Error("the pool was deleted with the first of two networks")
		}
		docker(t, slices.Concat([]string{"network", "create", "-d", "calico", "--ipam-driver", "calico-ipam"}, arguments,
			[]string{"two"})...)
		consistent(t)
	})
	for _, cidr := range []string{"10.70.0.0/24", "fd00:70::/64"} {
		if poolWithCIDR(t, cidr) != nil {
			t.Errorf("IPPool %s exists after its last network", cidr)
		}
	}
	for _, cidr := range []string{"192.168.0.0/16", "10.50.0.0/28"} {
		if poolWithCIDR(t, cidr) == nil {
			t.Errorf("IPPool %s, which the driver did not create, was deleted", cidr)
		}
	}
}

// TestPoolOfOtherHost registers a second host with the pool.
func TestPoolOfOtherHost(t *testing.T) {
	const cidr = "10.70.0.0/24"
	t.Run("network", func(t *testing.T) {
		createNetwork(t, "one", "--subnet", cidr, "--ipam-opt", "org.projectcalico.blocksize=28")
		pool := poolWithCIDR(t, cidr)
		pool.Annotations["org.projectcalico.docker/hosts"] += ",a1"
		_, err := lab.client.IPPools().Update(t.Context(), pool, options.SetOptions{})
		must(t, err)
	})
	pool := poolWithCIDR(t, cidr)
	if pool == nil {
		t.Fatal("the pool was deleted while another host has a network on it")
	}
	_, err := lab.client.IPPools().Delete(t.Context(), pool.Name, options.DeleteOptions{})
	must(t, err)
}

// TestReservation checks that reserved addresses are assigned by --ip only.
func TestReservation(t *testing.T) {
	createNetwork(t, "small", "--subnet", "10.50.0.0/28")
	reservation := v3.NewIPReservation()
	reservation.Name = "web"
	reservation.Spec.ReservedCIDRs = []string{"10.50.0.4/30", "10.50.0.9"}
	_, err := lab.client.IPReservations().Create(t.Context(), reservation, options.SetOptions{})
	must(t, err)
	t.Cleanup(func() {
		_, err := lab.client.IPReservations().Delete(context.Background(), "web", options.DeleteOptions{})
		must(t, err)
	})
	container(t, "web", "--network", "small", "--ip", "10.50.0.9")
	docker(t, "stop", "web")
	for i := range 16 - 5 {
		container(t, fmt.Sprintf("c%d", i), "--network", "small")
	}
	for _, each := range []string{"10.50.0.4", "10.50.0.7", "10.50.0.9"} {
		for i := range 16 - 5 {
			if got := address(t, fmt.Sprintf("c%d", i), "small").String(); got == each {
				t.Errorf("the reserved address %s was assigned to c%d", each, i)
			}
		}
	}
	refused(t, "pool small 10.50.0.0/28 has no free address for host a0", "run", "--rm", "--network", "small", "box",
		"true")
	docker(t, "start", "web")
	if got := address(t, "web", "small").String(); got != "10.50.0.9" {
		t.Errorf("restarted with %s", got)
	}
	ping(t, "c0", "10.50.0.9")
	docker(t, "run", "--rm", "--network", "small", "--ip", "10.50.0.5", "box", "true")
	consistent(t)
}

// TestSeveralPoolsOfOneFamily checks that addresses of the first pool are assigned, and of other pools by --ip only.
func TestSeveralPoolsOfOneFamily(t *testing.T) {
	createNetwork(t, "wide", "--subnet", "10.50.0.0/28", "--subnet", "192.168.0.0/16")
	container(t, "first", "--network", "wide")
	container(t, "second", "--network", "wide", "--ip", "192.168.77.77")
	// Docker's client sends the subnets in random order. The engine shows the order.
	firstPool := strings.Fields(inspect(t, "{{range .IPAM.Config}}{{.Subnet}} {{end}}", "wide"))[0]
	if at := address(t, "first", "wide"); !netip.MustParsePrefix(firstPool).Contains(at) {
		t.Errorf("%s is not in the first pool, %s", at, firstPool)
	}
	ping(t, "first", "192.168.77.77")
	ping(t, "second", address(t, "first", "wide").String())
	refused(t, "--ip 192.168.77.77: taken by container second", "run", "--rm", "--network", "wide", "--ip",
		"192.168.77.77", "box", "true")
	consistent(t)
}

// TestLeakedPools creates a pool whose network was not created, and one whose removal was interrupted.
func TestLeakedPools(t *testing.T) {
	for i, disabled := range []bool{false, true} {
		pool := v3.NewIPPool()
		pool.Name, pool.Annotations = fmt.Sprintf("leaked%d", i), map[string]string{"org.projectcalico.docker/hosts": node}
		pool.Spec = v3.IPPoolSpec{CIDR: fmt.Sprintf("10.71.%d.0/24", i), BlockSize: 28, Disabled: disabled}
		_, err := lab.client.IPPools().Create(t.Context(), pool, options.SetOptions{})
		must(t, err)
	}
	must(t, lab.driver.end(15))
	must(t, lab.driver.start())
	// RequestPool waits for the removal and then creates a new pool.
	createNetwork(t, "again", "--subnet", "10.71.1.0/24", "--ipam-opt", "org.projectcalico.blocksize=28")
	if pool := poolWithCIDR(t, "10.71.1.0/24"); pool == nil || pool.Spec.Disabled || pool.Name == "leaked1" {
		t.Errorf("the pool is %v", pool)
	}
	must(t, until(func() error {
		if poolWithCIDR(t, "10.71.0.0/24") != nil {
			return fmt.Errorf("the pool still exists")
		}
		return nil
	}))
	if _, err := lab.client.IPPools().Get(t.Context(), "leaked0", options.GetOptions{}); !datastore.IsNotFound(err) {
		t.Error(err)
	}
	if owned, err := (link.Host{}).List(); err != nil || len(owned) > 0 {
		t.Errorf("interfaces %v, %v", owned, err)
	}
}
