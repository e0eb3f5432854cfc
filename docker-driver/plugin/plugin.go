// Package plugin serves Docker's plugin protocol: HTTP POST with a JSON body over a unix socket, one path per call. Each
// response is JSON. An error is a sentence in "Err", and an unknown call returns 404.
//
// docker/go-plugins-helpers is not used: it is unmaintained, cannot log or time calls, and has neither GwAllocCheck nor a
// context. The protocol is small.
// Source: https://docs.docker.com/engine/extend/plugin_api/
package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// contentType is the media type of the protocol's version.
const contentType = "application/vnd.docker.plugins.v1.2+json"

// requestBytes limits a request's body. The largest requests of engines have a few kilobytes.
const requestBytes = 1 << 20

// Call handles one path of the protocol.
type Call struct {
	handle func(ctx context.Context, body []byte) (any, error)
	// emptyRequest and emptyResponse mean that the request or the response has no content.
	emptyRequest, emptyResponse bool
}

// Calls are calls by path without the slash, such as "NetworkDriver.Join".
type Calls map[string]Call

// Observer is called after each call.
type Observer func(call string, took time.Duration, err error)

// errNoContent is returned for a repeated call whose request is unknown.
var errNoContent = errors.New("the driver was restarted during this call, and Docker repeated it without its content: " +
	"run the command again")

// Typed returns a Call for a function with a typed request and response.
func Typed[Request, Response any](handle func(context.Context, Request) (Response, error)) Call {
	_, emptyRequest := any(*new(Request)).(Empty)
	_, emptyResponse := any(*new(Response)).(Empty)
	untyped := func(ctx context.Context, body []byte) (any, error) {
		var request Request
		if !emptyRequest {
			if err := json.Unmarshal(body, &request); err != nil {
				return nil, fmt.Errorf("decode the request: %w", err)
			}
		}
		return handle(ctx, request)
	}
	return Call{handle: untyped, emptyRequest: emptyRequest, emptyResponse: emptyResponse}
}

// Handler serves Plugin.Activate and the calls of the plugin types that implements lists.
func Handler(implements []string, calls Calls, journal *Journal, log *slog.Logger, observe Observer) http.Handler {
	served := Calls{"Plugin.Activate": Typed(func(context.Context, Empty) (ActivateResponse, error) {
		return ActivateResponse{Implements: implements}, nil
	})}
	for path, call := range calls {
		if kind, _, _ := strings.Cut(path, "."); slices.Contains(implements, kind) {
			served[path] = call
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/")
		call, known := served[path]
		if !known {
			respondError(w, http.StatusNotFound, path+" is not a call of this plugin")
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, requestBytes))
		if err != nil {
			respondError(w, http.StatusBadRequest, "read the request: "+err.Error())
			return
		}
		started := time.Now()
		var response any
		if body, err = call.content(path, body, journal); err == nil {
			if !call.emptyRequest {
				defer addToJournal(path, body, journal, log)()
			}
			// The call is completed also when the engine closes the connection, because half a call would leave resources.
			response, err = call.handle(context.WithoutCancel(r.Context()), body)
		}
		took := time.Since(started)
		observe(path, took, err)
		if err != nil {
			log.Error("call failed", "call", path, "took", took, "request", string(body), "error", err)
			respondError(w, http.StatusOK, err.Error())
			return
		}
		log.Info("call", "call", path, "took", took)
		log.Debug("call in full", "call", path, "request", string(body), "response", response)
		respond(w, http.StatusOK, response)
	})
}

// content returns the call's body, or the stored body of the call that it repeats.
func (c Call) content(path string, body []byte, journal *Journal) ([]byte, error) {
	if c.emptyRequest || len(bytes.TrimSpace(body)) > 0 {
		return body, nil
	}
	if stored, found := journal.Replay(path, c.emptyResponse); found {
		return stored, nil
	}
	return nil, errNoContent
}

// addToJournal stores the request and returns the function that removes it. A failure does not fail the call, because the
// journal is needed only after a restart of the driver.
func addToJournal(path string, body []byte, journal *Journal, log *slog.Logger) func() {
	remove, err := journal.Add(path, body)
	if err != nil {
		log.Warn("request not stored; a restart of the driver would lose the call", "call", path, "error", err)
		return func() {}
	}
	return func() {
		if err := remove(); err != nil {
			log.Warn("stored request not removed", "call", path, "error", err)
		}
	}
}

func respondError(w http.ResponseWriter, status int, sentence string) {
	respond(w, status, ErrorResponse{Err: sentence, Error: sentence})
}

func respond(w http.ResponseWriter, status int, response any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	// An error means that the engine closed the connection.
	_ = json.NewEncoder(w).Encode(response)
}

// Listen creates the socket dir/name.sock. It replaces an old socket atomically, so that the engine always finds the file
// during a restart of the driver and retries the connection.
func Listen(dir, name string) (net.Listener, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create the folder for Docker's plugin sockets: %w", err)
	}
	path := filepath.Join(dir, name+".sock")
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of an interrupted start: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("create the socket: %w", err)
	}
	listener.SetUnlinkOnClose(false)
	if err := os.Chmod(fresh, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("set the mode of the socket: %w", err), listener.Close())
	}
	if err := os.Rename(fresh, path); err != nil {
		return nil, errors.Join(fmt.Errorf("rename the socket: %w", err), listener.Close())
	}
	return listener, nil
}
