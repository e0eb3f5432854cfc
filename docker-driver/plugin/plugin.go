// Package plugin speaks Docker's plugin protocol: HTTP POST with a JSON body over a unix socket, one path per
// call. It owes every caller an answer in JSON, an error as a sentence in "Err", and 404 for a call it does not know.
//
// The protocol is this small, so docker/go-plugins-helpers is not used: it is unmaintained, answers errors with
// status 500 without a way to log or time a call, and knows neither GwAllocCheck nor a context.
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

// contentType is the protocol's version as Docker asks for it.
const contentType = "application/vnd.docker.plugins.v1.2+json"

// requestLimit bounds a request's body; the largest that engines send are a few kilobytes.
const requestLimit = 1 << 20

// Call answers one path of the protocol.
type Call struct {
	answer func(ctx context.Context, body []byte) (any, error)
	// bare calls have no content, alike ones the same answer to every request.
	bare, alike bool
}

// Calls maps a path without its slash, such as "NetworkDriver.Join", to what answers it.
type Calls map[string]Call

// Observer is told of every call once it has been answered.
type Observer func(call string, took time.Duration, err error)

// errRepeated refuses a call whose content is lost.
var errRepeated = errors.New("the driver was restarted during this call, and Docker repeated it without its content: " +
	"run the command again")

// Typed makes a Call of a function with the call's own request and response.
func Typed[Request, Response any](answer func(context.Context, Request) (Response, error)) Call {
	_, bare := any(*new(Request)).(Empty)
	_, alike := any(*new(Response)).(Empty)
	return Call{bare: bare, alike: alike, answer: func(ctx context.Context, body []byte) (any, error) {
		var request Request
		if !bare {
			if err := json.Unmarshal(body, &request); err != nil {
				return nil, fmt.Errorf("the request is not what this call takes: %w", err)
			}
		}
		return answer(ctx, request)
	}}
}

// Handler serves the calls, and Plugin.Activate with the plugin types that implements names.
func Handler(
	implements []string, calls Calls, unanswered *Unanswered, log *slog.Logger, observe Observer,
) http.Handler {
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
			refuse(w, http.StatusNotFound, path+" is not part of this plugin")
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, requestLimit))
		if err != nil {
			refuse(w, http.StatusBadRequest, "the request could not be read: "+err.Error())
			return
		}
		started := time.Now()
		var response any
		if body, err = call.content(path, body, unanswered); err == nil {
			if !call.bare {
				defer kept(path, body, unanswered, log)()
			}
			// A caller that hangs up does not stop the call half way: what it undoes or completes is the same either way.
			response, err = call.answer(context.WithoutCancel(r.Context()), body)
		}
		took := time.Since(started)
		observe(path, took, err)
		if err != nil {
			log.Error("call refused", "call", path, "took", took, "request", string(body), "error", err)
			refuse(w, http.StatusOK, err.Error())
			return
		}
		log.Info("call", "call", path, "took", took)
		log.Debug("call in full", "call", path, "request", string(body), "response", response)
		reply(w, http.StatusOK, response)
	})
}

// content returns what the call came with, or the content of the one that it repeats.
func (c Call) content(path string, body []byte, unanswered *Unanswered) ([]byte, error) {
	if c.bare || len(bytes.TrimSpace(body)) > 0 {
		return body, nil
	}
	if left, found := unanswered.Take(path, c.alike); found {
		return left, nil
	}
	return nil, errRepeated
}

// kept keeps the call's request until it is answered, for the case that this driver is killed: the call itself needs
// no file, and goes on without one.
func kept(path string, body []byte, unanswered *Unanswered, log *slog.Logger) func() {
	forget, err := unanswered.Keep(path, body)
	if err != nil {
		log.Warn("a call would be lost with the driver", "call", path, "error", err)
		return func() {}
	}
	return func() {
		if err := forget(); err != nil {
			log.Warn("the request of a call stays behind", "call", path, "error", err)
		}
	}
}

func refuse(w http.ResponseWriter, status int, sentence string) {
	reply(w, status, ErrorResponse{Err: sentence, Error: sentence})
}

func reply(w http.ResponseWriter, status int, response any) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	// The engine that hung up gets no answer; there is nobody to tell.
	_ = json.NewEncoder(w).Encode(response)
}

// Listen makes the socket dir/name.sock. It takes the place of one left behind in a single step, so that an engine
// that looks for the plugin during a restart of the driver always finds the file and retries the connection.
func Listen(dir, name string) (net.Listener, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder in which Docker looks for plugins: %w", err)
	}
	path := filepath.Join(dir, name+".sock")
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket that an interrupted start left: %w", err)
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for Docker: %w", err)
	}
	listener.SetUnlinkOnClose(false)
	if err := os.Chmod(fresh, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("keep others from the socket: %w", err), listener.Close())
	}
	if err := os.Rename(fresh, path); err != nil {
		return nil, errors.Join(fmt.Errorf("put the socket in its place: %w", err), listener.Close())
	}
	return listener, nil
}
