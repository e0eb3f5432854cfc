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

// stored returns the IPPool of this CIDR, or nil.
func stored(t *testing.T, cidr string) *v3.IPPool {
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
	makeNetwork(t, "named", "--ipv6", "--ipam-opt", "org.projectcalico.pool=small,netv6", "-o",
		"com.docker.network.driver.mtu=1400")
	// What a person who did not make the network can learn from docker about it.
	subnets := inspect(t, "{{range .IPAM.Config}}{{.Subnet}} {{end}}", "named")
	for _, want := range []string{"10.50.0.0/28", "fd00:50::/64"} {
		if !slices.Contains(strings.Fields(subnets), want) {
			t.Errorf("docker network inspect names %s, not %s", subnets, want)
		}
	}
	for template, want := range map[string]string{
		"{{.Driver}} {{.IPAM.Driver}} {{.Scope}} {{.EnableIPv6}}": "calico calico-ipam local true",
		`{{index .IPAM.Options "org.projectcalico.pool"}}`:        "small,netv6",
		`{{index .Options "com.docker.network.driver.mtu"}}`:      "1400",
	} {
		if got := inspect(t, template, "named"); got != want {
			t.Errorf("docker network inspect -f %s says %q, not %q", template, got, want)
		}
	}
	container(t, "c1", "--network", "named")
	container(t, "c2", "--network", "named")
	small, wide := netip.MustParsePrefix("10.50.0.0/28"), netip.MustParsePrefix("fd00:50::/64")
	ends := strings.Fields(inspect(t, "{{range .Containers}}{{.Name}} {{.IPv4Address}} {{.IPv6Address}} {{.MacAddress}} {{end}}",
		"named"))
	if len(ends) != 8 {
		t.Fatalf("docker network inspect names the containers as %v", ends)
	}
	for end := range slices.Chunk(ends, 4) {
		v4, err := netip.ParsePrefix(end[1])
		must(t, err)
		v6, err := netip.ParsePrefix(end[2])
		must(t, err)
		if !small.Contains(v4.Addr()) || !wide.Contains(v6.Addr()) {
			t.Errorf("container %s has %s and %s", end[0], v4, v6)
		}
		if link := docker(t, "exec", end[0], "ip", "link", "show", "eth0"); !strings.Contains(link, end[3]) ||
			!strings.Contains(link, "mtu 1400") {
			t.Errorf("%s is not as docker network inspect says, %s:\n%s", end[0], end[3], link)
		}
		ping(t, "c1", v6.Addr().String())
	}
	ping(t, "c1", address(t, "c2", "named").String())
	consistent(t)
}

// TestPoolByNameBesideAContainer has a route of this host in the pool, for which engines of the 20.10 line do not take a
// pool that was not asked for by its CIDR. They would ask for another one without end.
func TestPoolByNameBesideAContainer(t *testing.T) {
	netv(t)
	container(t, "c1", "--network", "netv")
	create := []string{"network", "create", "-d", "calico", "--ipam-driver", "calico-ipam", "--ipam-opt",
		"org.projectcalico.pool=netv", "again"}
	if _, complaint, err := attempt(create...); err == nil {
		docker(t, "network", "rm", "again")
	} else if !strings.Contains(complaint, "lies in it: add --subnet 192.168.0.0/16") {
		t.Errorf("docker %s: %v, %s", strings.Join(create, " "), err, complaint)
	}
	makeNetwork(t, "again", "--ipam-opt", "org.projectcalico.pool=netv", "--subnet", "192.168.0.0/16")
	container(t, "c2", "--network", "again")
	ping(t, "c2", address(t, "c1", "netv").String())
	consistent(t)
}

func TestPoolRefused(t *testing.T) {
	const have = "; the enabled pools are: netv 192.168.0.0/16, netv6 fd00:50::/64, small 10.50.0.0/28"
	for sentence, arguments := range map[string]string{
		"lab is not the name of an enabled Calico IPPool" + have:                    "--ipam-opt org.projectcalico.pool=lab",
		"org.projectcalico.pool=small: the pool of --subnet 192.168.0.0/16 is netv": "--ipam-opt org.projectcalico.pool=small --subnet 192.168.0.0/16",
		"--ipam-opt colour: not an option":                                          "--ipam-opt colour=blue --subnet 192.168.0.0/16",
		"-o org.projectcalico.pool: Docker tells this option too late":              "-o org.projectcalico.pool=netv --subnet 192.168.0.0/16",
		"a block size is a prefix length from /20 to /32":                           "--ipam-opt org.projectcalico.blocksize=64 --subnet 10.70.0.0/24",
		"pool small 10.50.0.0/28 is there and has blocks of /29":                    "--ipam-opt org.projectcalico.blocksize=30 --subnet 10.50.0.0/28",
		"make IPPool docker-192-168-4-0-24 192.168.4.0/24: ":                        "--ipam-opt org.projectcalico.blocksize=28 --subnet 192.168.4.0/24",
		"make IPPool docker-10-70-0-0-28 10.70.0.0/28: ":                            "--ipam-opt org.projectcalico.blocksize=26 --subnet 10.70.0.0/28",
		"make IPPool No_Name 10.70.0.0/24: ":                                        "--ipam-opt org.projectcalico.blocksize=26 --ipam-opt org.projectcalico.pool=No_Name --subnet 10.70.0.0/24",
		"--gateway 10.70.0.1: a Calico network has no gateway address":              "--ipam-opt org.projectcalico.blocksize=26 --subnet 10.70.0.0/24 --gateway 10.70.0.1",
		"-o colour: not an option of a Calico network":                              "--ipam-opt org.projectcalico.blocksize=26 --subnet 10.70.0.0/24 -o colour=blue",
		"fd00:99::/64 is not an enabled Calico IPPool":                              "--ipam-opt org.projectcalico.blocksize=26 --subnet 10.70.0.0/24 --ipv6 --subnet fd00:99::/64",
	} {
		words := slices.Concat([]string{"network", "create", "-d", "calico", "--ipam-driver", "calico-ipam"},
			strings.Fields(arguments), []string{"n"})
		refused(t, sentence, words...)
	}
	// Some pools were made before what came after them was refused.
	for _, cidr := range []string{"10.70.0.0/24", "10.70.0.0/28", "192.168.4.0/24"} {
		if pool := stored(t, cidr); pool != nil {
			t.Errorf("a refused network left IPPool %s", pool.Name)
		}
	}
}

func TestPoolIsMadeAndRemoved(t *testing.T) {
	arguments := []string{"--subnet", "10.70.0.0/24", "--ipam-opt", "org.projectcalico.blocksize=28,124", "--ipv6",
		"--subnet", "fd00:70::/64", "--ipam-opt", "org.projectcalico.pool=shop,shop6"}
	t.Run("there", func(t *testing.T) {
		makeNetwork(t, "one", arguments...)
		makeNetwork(t, "two", arguments...)
		for cidr, want := range map[string]string{"10.70.0.0/24": "shop /28", "fd00:70::/64": "shop6 /124"} {
			pool := stored(t, cidr)
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
		if stored(t, "10.70.0.0/24") == nil {
			t.Error("the pool went with the first of two networks")
		}
		docker(t, slices.Concat([]string{"network", "create", "-d", "calico", "--ipam-driver", "calico-ipam"}, arguments,
			[]string{"two"})...)
		consistent(t)
	})
	for _, cidr := range []string{"10.70.0.0/24", "fd00:70::/64"} {
		if stored(t, cidr) != nil {
			t.Errorf("IPPool %s stayed after its last network", cidr)
		}
	}
	for _, cidr := range []string{"192.168.0.0/16", "10.50.0.0/28"} {
		if stored(t, cidr) == nil {
			t.Errorf("IPPool %s, which is the operator's, is gone", cidr)
		}
	}
}

// TestPoolOfAnotherHost has a second host on the pool, as the driver of that host notes it.
func TestPoolOfAnotherHost(t *testing.T) {
	const cidr = "10.70.0.0/24"
	t.Run("network", func(t *testing.T) {
		makeNetwork(t, "one", "--subnet", cidr, "--ipam-opt", "org.projectcalico.blocksize=28")
		pool := stored(t, cidr)
		pool.Annotations["org.projectcalico.docker/hosts"] += ",a1"
		_, err := lab.client.IPPools().Update(t.Context(), pool, options.SetOptions{})
		must(t, err)
	})
	pool := stored(t, cidr)
	if pool == nil {
		t.Fatal("the pool went while another host has a network on it")
	}
	_, err := lab.client.IPPools().Delete(t.Context(), pool.Name, options.DeleteOptions{})
	must(t, err)
}

// TestReservation is about addresses that are given away by name only, such as that of a container that is stopped.
func TestReservation(t *testing.T) {
	makeNetwork(t, "small", "--subnet", "10.50.0.0/28")
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
				t.Errorf("the reserved address %s was given to c%d", each, i)
			}
		}
	}
	refused(t, "pool small 10.50.0.0/28 has no free address for host a0", "run", "--rm", "--network", "small", "box",
		"true")
	docker(t, "start", "web")
	if got := address(t, "web", "small").String(); got != "10.50.0.9" {
		t.Errorf("came back with %s", got)
	}
	ping(t, "c0", "10.50.0.9")
	docker(t, "run", "--rm", "--network", "small", "--ip", "10.50.0.5", "box", "true")
	consistent(t)
}

// TestSeveralPoolsOfOneFamily has addresses from the first pool, because Docker asks for no other when that is full,
// and of the others by --ip.
func TestSeveralPoolsOfOneFamily(t *testing.T) {
	makeNetwork(t, "wide", "--subnet", "10.50.0.0/28", "--subnet", "192.168.0.0/16")
	container(t, "first", "--network", "wide")
	container(t, "second", "--network", "wide", "--ip", "192.168.77.77")
	// Docker's client keeps the subnets in a map: the engine alone knows which came first.
	asked := strings.Fields(inspect(t, "{{range .IPAM.Config}}{{.Subnet}} {{end}}", "wide"))[0]
	if at := address(t, "first", "wide"); !netip.MustParsePrefix(asked).Contains(at) {
		t.Errorf("%s is not of %s, the pool that the engine asks", at, asked)
	}
	ping(t, "first", "192.168.77.77")
	ping(t, "second", address(t, "first", "wide").String())
	refused(t, "--ip 192.168.77.77: taken by container second", "run", "--rm", "--network", "wide", "--ip",
		"192.168.77.77", "box", "true")
	consistent(t)
}

// TestPoolOfAKilledEngine makes a pool for a network that the engine did not live to create, and one whose removal a
// driver did not live to finish.
func TestPoolOfAKilledEngine(t *testing.T) {
	for i, disabled := range []bool{false, true} {
		pool := v3.NewIPPool()
		pool.Name, pool.Annotations = fmt.Sprintf("left%d", i), map[string]string{"org.projectcalico.docker/hosts": node}
		pool.Spec = v3.IPPoolSpec{CIDR: fmt.Sprintf("10.71.%d.0/24", i), BlockSize: 28, Disabled: disabled}
		_, err := lab.client.IPPools().Create(t.Context(), pool, options.SetOptions{})
		must(t, err)
	}
	must(t, lab.driver.end(15))
	must(t, lab.driver.start())
	// Waits for the removal, and is then the only one on a new pool.
	makeNetwork(t, "again", "--subnet", "10.71.1.0/24", "--ipam-opt", "org.projectcalico.blocksize=28")
	if pool := stored(t, "10.71.1.0/24"); pool == nil || pool.Spec.Disabled || pool.Name == "left1" {
		t.Errorf("the pool is %v", pool)
	}
	must(t, until(func() error {
		if stored(t, "10.71.0.0/24") != nil {
			return fmt.Errorf("the pool is still there")
		}
		return nil
	}))
	if _, err := lab.client.IPPools().Get(t.Context(), "left0", options.GetOptions{}); !datastore.Absent(err) {
		t.Error(err)
	}
	if owned, err := (link.Host{}).Owned(); err != nil || len(owned) > 0 {
		t.Errorf("interfaces %v, %v", owned, err)
	}
}
