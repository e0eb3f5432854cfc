// Package trigger lets any goroutine request a run of a loop.
package trigger

// Trigger holds at most one request. Further requests are merged with it. It is safe for concurrent use.
type Trigger chan struct{}

// New returns a trigger without a request.
func New() Trigger { return make(Trigger, 1) }

// Request requests a run. It does not block. A request made during a run causes another run.
func (t Trigger) Request() {
	select {
	case t <- struct{}{}:
	default:
	}
}
