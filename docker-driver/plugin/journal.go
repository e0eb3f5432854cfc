package plugin

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// replayWindow is longer than an engine repeats a call without a response (30 s in pkg/plugins/client.go).
const replayWindow = time.Minute

// Journal stores the request of each call in a file until the call has a response, so that the driver can complete the
// call after a restart. Docker's plugin client repeats a call without its body, because it has read the body at the first
// attempt. The files need not survive a power failure, because the engine's calls do not. A Journal is safe for concurrent
// use.
type Journal struct {
	folder string
	mutex  sync.Mutex
	// left are the files of the previous driver process, by call.
	left map[string][]string
}

// OpenJournal reads the requests that the previous driver process left in the folder. It creates the folder if necessary.
func OpenJournal(folder string) (*Journal, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("create the folder for requests: %w", err)
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("read the folder for requests: %w", err)
	}
	j := &Journal{folder: folder, left: map[string][]string{}}
	for _, file := range files {
		call, _, _ := strings.Cut(file.Name(), "-")
		j.left[call] = append(j.left[call], filepath.Join(folder, file.Name()))
	}
	time.AfterFunc(replayWindow, j.expire)
	return j, nil
}

// Add stores the request of a call. The caller calls remove when the call has a response.
func (j *Journal) Add(call string, body []byte) (remove func() error, err error) {
	file, err := os.CreateTemp(j.folder, call+"-")
	if err != nil {
		return nil, fmt.Errorf("store the request of a call: %w", err)
	}
	_, err = file.Write(body)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("store the request of a call: %w", err), os.Remove(file.Name()))
	}
	return func() error { return os.Remove(file.Name()) }, nil
}

// Replay returns the request of a repeated call and removes it from the journal. If several requests of the call are left,
// it is unknown which of them is repeated. Then Replay returns one only if they are equal, or if interchangeable is true
// because all calls of this kind have the same response.
func (j *Journal) Replay(call string, interchangeable bool) ([]byte, bool) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	var bodies [][]byte
	var paths []string
	for _, path := range j.left[call] {
		// The file is empty if the previous process was killed before it wrote the request.
		if body, err := os.ReadFile(path); err == nil && len(body) > 0 {
			bodies, paths = append(bodies, body), append(paths, path)
		}
	}
	differs := func(body []byte) bool { return !bytes.Equal(body, bodies[0]) }
	if len(bodies) == 0 || !interchangeable && slices.ContainsFunc(bodies, differs) {
		return nil, false
	}
	j.left[call] = paths[1:]
	return bodies[0], os.Remove(paths[0]) == nil
}

// expire removes the requests that no engine repeats any more. A file that cannot be removed stays until the next start.
func (j *Journal) expire() {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	for _, paths := range j.left {
		for _, path := range paths {
			_ = os.Remove(path)
		}
	}
	j.left = nil
}
