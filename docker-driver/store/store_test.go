package store_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"calico-lab/docker-driver/datastore"
	"calico-lab/docker-driver/store"
)

var pool = datastore.Pool{Name: "netv", CIDR: netip.MustParsePrefix("192.168.0.0/16")}

func open(t *testing.T, folder string) *store.Store {
	t.Helper()
	s, err := store.Open(folder)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s *store.Store, id string, network store.Network) store.Network {
	t.Helper()
	stored, err := s.PutNetwork(id, network)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

func TestOpenReadsStoredState(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "state")
	first := open(t, folder)
	network := put(t, first, "n", store.Network{Pools: datastore.Pools{pool}, MTU: 1400})
	port := store.Port{
		Protocol: "tcp", HostPort: 80, Container: netip.MustParseAddr("192.168.0.1"), ContainerPort: 8080,
	}
	if err := first.SetPublished("e", []store.Port{port}); err != nil {
		t.Fatal(err)
	}
	second := open(t, folder)
	if got, known := second.Network("n"); !known || !reflect.DeepEqual(got, network) {
		t.Errorf("network %+v, not %+v", got, network)
	}
	if got := second.Published()["e"]; !reflect.DeepEqual(got, []store.Port{port}) {
		t.Errorf("published %+v, not %+v", got, port)
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 1 {
		t.Errorf("other files in the folder: %v %v", entries, err)
	}
}

func TestPutNetworkIndex(t *testing.T) {
	s := open(t, t.TempDir())
	for want, id := range []string{"a", "b", "c"} {
		if got := put(t, s, id, store.Network{}).Index; got != want {
			t.Errorf("network %s has index %d, not %d", id, got, want)
		}
	}
	if got := put(t, s, "b", store.Network{MTU: 1400}).Index; got != 1 {
		t.Errorf("a network stored again has index %d", got)
	}
	if err := s.DeleteNetwork("a"); err != nil {
		t.Fatal(err)
	}
	if got := put(t, s, "d", store.Network{}).Index; got != 0 {
		t.Errorf("a free index is not reused: %d", got)
	}
}

func TestDeleteMissingRecord(t *testing.T) {
	folder := t.TempDir()
	s := open(t, folder)
	if err := s.DeleteNetwork("n"); err != nil {
		t.Error(err)
	}
	if err := s.SetPublished("e", nil); err != nil {
		t.Error(err)
	}
}

func TestOpenDamagedFile(t *testing.T) {
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "state.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(folder); err == nil || !strings.Contains(err.Error(), "state.json is damaged") {
		t.Errorf("error %v", err)
	}
}

func TestPutNetworkWriteFails(t *testing.T) {
	folder := t.TempDir()
	s := open(t, folder)
	put(t, s, "kept", store.Network{})
	if err := os.Mkdir(filepath.Join(folder, "state.json.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutNetwork("n", store.Network{}); err == nil {
		t.Error("no error")
	}
	if _, known := s.Network("n"); known {
		t.Error("the network is in memory and not on disk")
	}
	if _, known := s.Network("kept"); !known {
		t.Error("the older record is missing")
	}
}

func TestSetStaleReleasesIsStored(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "state")
	address := netip.MustParseAddr("192.168.0.1")
	for count := 2; count >= 0; count-- {
		if err := open(t, folder).SetStaleReleases(address, count); err != nil {
			t.Fatal(err)
		}
		if got := open(t, folder).StaleReleases(address); got != count {
			t.Errorf("%d stale releases, not %d", got, count)
		}
	}
	put(t, open(t, folder), "n", store.Network{})
	content, err := os.ReadFile(filepath.Join(folder, "state.json"))
	if err != nil || strings.Contains(string(content), "StaleReleases") {
		t.Errorf("the record is not deleted: %v\n%s", err, content)
	}
}
