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

// repeats is how long an engine repeats a call that got no answer, and some more (30 s in pkg/plugins/client.go).
const repeats = time.Minute

// Unanswered keeps the request of every call that is under way in a file, for the driver that comes after one that was
// killed: Docker's plugin client reads its own buffer empty at the first try, and repeats the call without content.
// Files survive the process, and need not survive the loss of power, which Docker does not either. It is safe for
// concurrent use.
type Unanswered struct {
	folder string
	mutex  sync.Mutex
	// left are the files of the driver before this one, by call.
	left map[string][]string
}

// OpenUnanswered finds what the driver before this one left in the folder, which is made when there is none.
func OpenUnanswered(folder string) (*Unanswered, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder for calls under way: %w", err)
	}
	files, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("look for calls without an answer: %w", err)
	}
	u := &Unanswered{folder: folder, left: map[string][]string{}}
	for _, file := range files {
		call, _, _ := strings.Cut(file.Name(), "-")
		u.left[call] = append(u.left[call], filepath.Join(folder, file.Name()))
	}
	time.AfterFunc(repeats, u.expire)
	return u, nil
}

// Keep writes the call's request down, and returns what forgets it once the call is answered.
func (u *Unanswered) Keep(call string, body []byte) (forget func() error, err error) {
	file, err := os.CreateTemp(u.folder, call+"-")
	if err != nil {
		return nil, fmt.Errorf("keep the request of a call: %w", err)
	}
	_, err = file.Write(body)
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("keep the request of a call: %w", err), os.Remove(file.Name()))
	}
	return func() error { return os.Remove(file.Name()) }, nil
}

// Take gives a request that the driver before this one left unanswered, and gives it once. Where several calls were
// under way nobody can tell whose repetition this is: only alike ones, which all have the same answer, may then stand
// for each other, and so may requests of the same content.
func (u *Unanswered) Take(call string, alike bool) ([]byte, bool) {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	var bodies [][]byte
	var paths []string
	for _, path := range u.left[call] {
		// One that was killed before it had written the file left it empty.
		if body, err := os.ReadFile(path); err == nil && len(body) > 0 {
			bodies, paths = append(bodies, body), append(paths, path)
		}
	}
	differs := func(body []byte) bool { return !bytes.Equal(body, bodies[0]) }
	if len(bodies) == 0 || !alike && slices.ContainsFunc(bodies, differs) {
		return nil, false
	}
	u.left[call] = paths[1:]
	return bodies[0], os.Remove(paths[0]) == nil
}

// expire removes what no engine asks for any more. A file that cannot be removed is left to the driver after this one.
func (u *Unanswered) expire() {
	u.mutex.Lock()
	defer u.mutex.Unlock()
	for _, paths := range u.left {
		for _, path := range paths {
			_ = os.Remove(path)
		}
	}
	u.left = nil
}
