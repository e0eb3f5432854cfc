package plugin_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"calico-lab/docker-driver/plugin"
)

func TestListenReplacesOldSocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "docker", "plugins")
	path := filepath.Join(dir, "calico.sock")
	first, err := plugin.Listen(dir, "calico")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket is missing between two runs: %v", err)
	}
	second, err := plugin.Listen(dir, "calico")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	connection, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("other files in the folder: %v %v", entries, err)
	}
}
