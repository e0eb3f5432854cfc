package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// headerTimeout limits how long a server waits for a request's header.
const headerTimeout = 10 * time.Second

// servers are the running HTTP servers.
type servers struct {
	running []*http.Server
	failed  chan error
}

func newServers() *servers { return &servers{failed: make(chan error, 1)} }

// serve starts a server.
func (s *servers) serve(listener net.Listener, handler http.Handler) {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: headerTimeout}
	s.running = append(s.running, server)
	go func() {
		err := server.Serve(listener)
		if errors.Is(err, http.ErrServerClosed) {
			return
		}
		// Only the first failure is reported, because it stops the driver.
		select {
		case s.failed <- fmt.Errorf("serve %s: %w", listener.Addr(), err):
		default:
		}
	}()
}

// wait waits until the context ends, or returns the error of a server that failed.
func (s *servers) wait(ctx context.Context) error {
	select {
	case err := <-s.failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// shutDown waits until the calls in progress end. A call that does not end in time, because it waits for etcd, is no error:
// its request is in the journal, and after the restart the driver completes it when Docker repeats it.
func (s *servers) shutDown(ctx context.Context) error {
	var failed error
	for _, server := range s.running {
		if err := server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}
