package main

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"
)

// A call that waits for etcd when the driver is told to stop is answered by the next driver. It is no failure of this one.
func TestACallThatWaitsDoesNotMakeTheEndAFailure(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	called, released := make(chan struct{}), make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(called)
		<-released
	})}
	go func() { _ = server.Serve(listener) }()
	go func() { _, _ = http.Get("http://" + listener.Addr().String()) }()
	<-called
	defer close(released)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := shutDown(ctx, []*http.Server{server}); err != nil {
		t.Error(err)
	}
}
