package main

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"
)

// A call that waits for etcd at a stop of the driver is completed after the restart. It is no failure of the stop.
func TestServersShutDownWithCallInProgress(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	called, released := make(chan struct{}), make(chan struct{})
	servers := newServers()
	servers.serve(listener, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(called)
		<-released
	}))
	go func() { _, _ = http.Get("http://" + listener.Addr().String()) }()
	<-called
	defer close(released)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := servers.shutDown(ctx); err != nil {
		t.Error(err)
	}
}

func TestServersWaitReturnsFailure(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	servers := newServers()
	servers.serve(listener, http.NotFoundHandler())
	if err := servers.wait(t.Context()); err == nil {
		t.Error("no error")
	}
}
