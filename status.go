//go:build !nohttp && !notls

package main

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The status page and what goes with it: the same figures as JSON, the metrics, and whether the
// server is alive and ready. All of it only reads; it serves GET and HEAD, and knows no bettor.

const (
	// statusHeader is how many bytes of headers a request may have. net/http reads 4 KiB more
	// than it is told to.
	statusHeader = 8<<10 - 4096
	// statusWait is how long a request may take to come, and statusIdle how long a connection
	// stays without one.
	statusWait = 5 * time.Second
	statusIdle = 10 * time.Second
)

// page is the page, with its style and script in it: render fills it in.
//
//go:embed view/page.html
var page string

// A statusServer serves the page.
type statusServer struct {
	http   http.Server
	hosts  []string     // that may be asked for, besides addresses; in lower case
	local  bool         // it listens on loopback
	policy string       // the Content-Security-Policy
	open   atomic.Int32 // connections

	// mu is held while a request is answered, so that any number of them takes one processor at
	// most. It protects the following.
	mu    sync.Mutex
	watch *watch
}

// openStatus starts the status page of a server that ctx ends, before its store recovers. opened
// tells the page that it has, stop ends the page.
func openStatus(ctx context.Context, cfg *config, counts *counts, shared sharedLog, log *slog.Logger) (
	opened func(*store, net.Listener), stop func(), err error) {
	o := &office{cfg: cfg, counts: counts, stopping: func() bool { return ctx.Err() != nil }}
	o.stream, _ = shared.(streamView) // nil where nothing is shared
	stop, err = serveStatus(cfg, o, log)
	return func(st *store, door net.Listener) { o.open(st, door) }, stop, err
}

// serveStatus starts to serve the status page where status.address says, and returns what ends
// that. Without status.address it does nothing.
func serveStatus(cfg *config, o *office, log *slog.Logger) (stop func(), err error) {
	if cfg.statusAddress == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", cfg.statusAddress)
	if err != nil {
		return nil, fmt.Errorf("listening for the status page: %w: choose another status.address", err)
	}
	s := newStatusServer(cfg, o, listener.Addr())
	ctx, cancel := context.WithCancel(context.Background())
	go s.sample(ctx)
	go s.http.Serve(listener)
	log.Info(actStatus, success, "address", listener.Addr())
	if !s.local {
		log.Warn(actStatus, success, "address", listener.Addr(), "reason", "the status page is not on loopback alone",
			"todo", "whoever reaches it can read it: let a firewall or a proxy decide who does")
	}
	return func() {
		cancel()
		log.Info(actCloseStatus, closed(s.http.Close()))
	}, nil
}

// newStatusServer returns a server of the page that will listen at addr.
func newStatusServer(cfg *config, o *office, addr net.Addr) *statusServer {
	s := &statusServer{watch: newWatch(o), policy: contentPolicy(page)}
	if host, _, err := net.SplitHostPort(cfg.statusAddress); err == nil {
		s.hosts = append(s.hosts, strings.ToLower(host))
	}
	for host := range strings.SplitSeq(cfg.statusHosts, ",") {
		s.hosts = append(s.hosts, strings.ToLower(strings.TrimSpace(host)))
	}
	if at, ok := addr.(*net.TCPAddr); ok {
		s.local = at.IP.IsLoopback()
	}
	s.http = http.Server{Handler: s, ReadHeaderTimeout: statusWait, ReadTimeout: statusWait,
		WriteTimeout: 2 * statusWait, IdleTimeout: statusIdle, MaxHeaderBytes: statusHeader, ConnState: s.count,
		DisableGeneralOptionsHandler: true, ErrorLog: stdlog.New(io.Discard, "", 0)}
	return s
}

// sample takes a sample every second.
func (s *statusServer) sample(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.mu.Lock()
			s.watch.sample(now)
			s.mu.Unlock()
		}
	}
}

// count counts the connections, and closes those that are too many.
func (s *statusServer) count(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if s.open.Add(1) > statusConns {
			conn.Close()
		}
	case http.StateClosed:
		s.open.Add(-1)
	}
}

// contentPolicy allows the style and the script that stand in the page, by their hashes, and
// nothing from elsewhere.
func contentPolicy(page string) string {
	policy := "default-src 'none'; connect-src 'self'; img-src data:; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	for _, tag := range []string{"style", "script"} {
		_, text, _ := strings.Cut(page, "<"+tag+">")
		text, _, _ = strings.Cut(text, "</"+tag+">")
		hash := sha256.Sum256([]byte(text))
		policy += fmt.Sprintf("; %s-src 'sha256-%s'", tag, base64.StdEncoding.EncodeToString(hash[:]))
	}
	return policy
}

// ServeHTTP answers a request.
func (s *statusServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Security-Policy", s.policy)
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("Cache-Control", "no-store")
	if r.ContentLength != 0 { // a body has no meaning here, and is not read
		head.Set("Connection", "close")
	}
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		head.Set("Allow", "GET, HEAD")
		s.say(w, http.StatusMethodNotAllowed, "GET and HEAD alone")
	case !s.answersFor(r.Host):
		s.say(w, http.StatusMisdirectedRequest, "not under this name: set status.hosts")
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.answer(w, r.URL.Path)
	}
}

// answersFor reports whether the page may be asked for under host. A page of somebody else
// whose name was made to stand for this address (DNS rebinding) has that name here. An address
// is no name.
func (s *statusServer) answersFor(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback() || !s.local
	}
	return host == "localhost" || host != "" && slices.Contains(s.hosts, host)
}

// answer answers for a path. s.mu is held.
func (s *statusServer) answer(w http.ResponseWriter, path string) {
	now := time.Now()
	switch path {
	case "/":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write(render(nil, page, pageView(s.watch.report(now))))
	case "/status.json":
		w.Header().Set("Content-Type", "application/json")
		text, _ := json.MarshalIndent(s.watch.report(now), "", "  ") // its types are all ones that JSON has
		w.Write(append(text, '\n'))
	case "/metrics":
		w.Header().Set("Content-Type", metricsType)
		w.Write(appendMetrics(nil, s.watch.report(now), s.watch.office.counts))
	case "/livez":
		r := s.watch.report(now)
		s.sayHealth(w, r.Store.fatal == nil, r.Reason)
	case "/readyz", "/healthz":
		r := s.watch.report(now)
		s.sayHealth(w, r.Taking, r.Reason)
	default:
		s.say(w, http.StatusNotFound, "there are: / /status.json /metrics /livez /readyz /healthz")
	}
}

// sayHealth answers 200, or 503 with the reason.
func (s *statusServer) sayHealth(w http.ResponseWriter, good bool, reason string) {
	if good {
		s.say(w, http.StatusOK, "ok")
		return
	}
	s.say(w, http.StatusServiceUnavailable, reason)
}

// say answers with a line.
func (s *statusServer) say(w http.ResponseWriter, code int, line string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	io.WriteString(w, line+"\n")
}
