package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

// A server is the central office: it accepts connections until shutdown is called, and
// serves each independently of the others (conn.go).
type server struct {
	svc      *service
	stop     context.CancelFunc // of svc
	slots    chan struct{}      // holds one item for each connection: conn.max of them
	listener net.Listener

	mu    sync.Mutex // protects following
	conns map[*serverConn]struct{}
	ended sync.WaitGroup // connections, and serve
}

// drainTime is how long shutdown lets the messages that have begun to come finish.
const drainTime = 5 * time.Second

// acceptPause is how long the server waits after it could not accept a connection. It has
// run out of descriptors or memory, which may pass.
const acceptPause = 100 * time.Millisecond

// ownFiles is how many descriptors the server leaves to its store, its log and itself.
const ownFiles = 40

// newServer returns a server for a store that is open; closing the store, after shutdown,
// stays the caller's.
func newServer(cfg *config, st *store, counts *counts, log *slog.Logger) *server {
	stopped, stop := context.WithCancel(context.Background())
	svc := &service{
		store: st, counts: counts, log: log, rule: rule{maxNumber: uint16(cfg.maxNumber)},
		lottery: cfg.drawAgencies > 0, idle: cfg.connIdle, stopped: stopped,
	}
	limit := fileLimit()
	if cfg.statusAddress != "" {
		limit -= statusConns
	}
	if cfg.tlsCert != "" {
		limit -= maxStrangers
	}
	slots := make(chan struct{}, connMax(cfg.connMax, limit, log))
	return &server{svc: svc, stop: stop, slots: slots, conns: map[*serverConn]struct{}{}}
}

// connMax returns conn.max, cut to what the limit of open files leaves.
func connMax(most, limit int, log *slog.Logger) int {
	left := max(1, limit-ownFiles)
	if left >= most {
		return most
	}
	log.Warn(actListen, inProgress, "conn_max", left, "reason", fmt.Sprintf("conn.max is %d, but this process "+
		"has %d files for them and its store", most, limit), "todo", "raise that limit (ulimit -n), or lower conn.max")
	return left
}

// runServer is mode server: it returns when ctx is cancelled and all is closed, or when the
// store has failed.
func runServer(ctx context.Context, cfg *config, log *slog.Logger) error {
	// The server makes garbage once a group, not once a bet: collecting it early costs nothing
	// and keeps the process small.
	debug.SetGCPercent(25)
	cfg.logTo(log)
	counts := newCounts()
	log = counts.listen(log)
	guard, err := loadGate(cfg, log)
	if err != nil {
		return err
	}
	shared, leave, err := openShared(cfg, log)
	if err != nil {
		return err
	}
	defer leave()
	tellStatus, stopStatus, err := openStatus(ctx, cfg, counts, shared, log)
	if err != nil {
		return err
	}
	defer stopStatus()
	began := time.Now()
	disk, path, err := openDisk(cfg.storePath)
	if err != nil {
		return storeFolderError(err)
	}
	defer disk.Close()
	boss := newSupervisor(os.Getenv)
	options := storeOptions{path: path, sync: cfg.storeSync, agencies: cfg.drawAgencies, winner: cfg.drawWinner,
		shared: shared, name: serverName(cfg)}
	st, err := openStore(ctx, countedDisk{disk, counts}, options, log)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return errStopped
	}
	if err != nil {
		return storeFolderError(err)
	}
	counts.recoveredIn(time.Since(began))
	srv := newServer(cfg, st, counts, log)
	listener, err := listen(cfg, log)
	if err != nil {
		st.close()
		return err
	}
	srv.listener = guard(listener)
	tellStatus(st, srv.listener)
	srv.ended.Go(srv.serve)
	boss.watch("Taking bets on "+listener.Addr().String()+".", st.pulse, ctx.Done())
	select {
	case <-ctx.Done():
	case <-st.dead:
	}
	boss.tell("STOPPING=1", status("Stopping."))
	srv.shutdown()
	err = st.close()
	log.Info(actCloseStore, closed(err), "file", cfg.storePath, "lotes", st.batches, "commits", st.commits)
	return err
}

// listen listens where the settings say.
func listen(cfg *config, log *slog.Logger) (net.Listener, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(cfg.serverHost, fmt.Sprint(cfg.serverPort)))
	if err != nil {
		return nil, fmt.Errorf("listening: %w: choose another server.port or server.host", err)
	}
	log.Info(actListen, success, "address", listener.Addr(), "port", listener.Addr().(*net.TCPAddr).Port)
	if cfg.tlsCert == "" && !listener.Addr().(*net.TCPAddr).IP.IsLoopback() {
		log.Warn(actListen, success, "address", listener.Addr(),
			"reason", "whoever reaches this port can pose as any agency, and read along",
			"todo", "set tls.cert and tls.known (tp0 -mode=keys makes the files), or server.host=127.0.0.1")
	}
	return listener, nil
}

// openShared returns the log that servers share, by the settings, and what closes it; nil: there is
// none.
func openShared(cfg *config, log *slog.Logger) (shared sharedLog, leave func(), err error) {
	if cfg.stream.servers != "" && cfg.storeSync != syncAlways {
		return nil, nil, usageErrorf("store.sync: with stream.servers it must be always: an answered bet is on this " +
			"disk and in the stream")
	}
	if shared, err = openStream(cfg, log); shared == nil {
		return nil, func() {}, err
	}
	return shared, shared.close, err
}

// serverName returns by which name people know this server, among those that share a log.
func serverName(cfg *config) string {
	host := cfg.serverHost
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() { // all servers may have that one
		host, _ = os.Hostname()
	}
	return net.JoinHostPort(host, fmt.Sprint(cfg.serverPort))
}

// runForget is mode forget: the store, which no server may have, forgets a source.
func runForget(ctx context.Context, cfg *config, log *slog.Logger) error {
	disk, path, err := openDisk(cfg.storePath)
	if err != nil {
		return storeFolderError(err)
	}
	defer disk.Close()
	if _, err := os.Stat(path + ".state"); err != nil {
		return fmt.Errorf("forget: there is no store: %w: set store.path", err)
	}
	key := sourceKey{uint8(cfg.id), cfg.dataSource}
	return storeFolderError(forgetSource(ctx, disk, storeOptions{path: path, sync: cfg.storeSync}, key, log))
}

// storeFolderError adds who lacks the right to what, and the remedy, to an error that is
// about rights.
func storeFolderError(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: make the folder, or set another store.path", err)
	}
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%w: user %d may not write there: give the folder to that user, or set store.path "+
			"to a folder of theirs", err, os.Getuid())
	}
	return err
}

// serve accepts connections until the listener is closed. While conn.max are open the next
// ones wait in the system's queue.
func (srv *server) serve() {
	failing := false // the last try to accept one has failed: that is said once
	for {
		// A slot before the connection: the one that is too many waits in the system's queue,
		// and is not accepted only to be turned away.
		select {
		case srv.slots <- struct{}{}:
		case <-srv.svc.stopped.Done():
			return
		}
		if !failing {
			srv.svc.log.Info(actAcceptConnections, inProgress)
		}
		conn, err := srv.listener.Accept()
		if err != nil {
			<-srv.slots
			if srv.svc.shuttingDown() || errors.Is(err, net.ErrClosed) {
				return
			}
			if !failing {
				srv.svc.log.Warn(actAcceptConnections, fail, "reason", err, "todo", "nothing: it is tried again")
			}
			failing = true
			time.Sleep(acceptPause)
			continue
		}
		failing = false
		ip, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		srv.svc.log.Info(actAcceptConnections, success, "ip", ip)
		srv.start(newServerConn(srv.svc, conn, peerOf(conn, ip)))
	}
}

// start serves c in a goroutine of its own.
func (srv *server) start(c *serverConn) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.svc.shuttingDown() { // shutdown has passed by
		srv.svc.log.Info(actCloseConnection, closed(c.conn.Close()), "ip", c.peer.ip)
		<-srv.slots
		return
	}
	srv.conns[c] = struct{}{}
	srv.ended.Go(func() {
		c.serve()
		srv.mu.Lock()
		delete(srv.conns, c)
		srv.mu.Unlock()
		<-srv.slots
	})
}

// shutdown stops accepting, lets the messages that have begun to come finish for drainTime
// at most, and closes all connections.
func (srv *server) shutdown() {
	srv.stop()
	srv.mu.Lock()
	err := srv.listener.Close()
	for c := range srv.conns {
		c.wake()
	}
	srv.mu.Unlock()
	srv.svc.log.Info(actCloseListener, closed(err))
	// Connections that wait for a message to begin end at once. Those in the middle of one
	// have until then.
	late := time.AfterFunc(drainTime, func() {
		srv.mu.Lock()
		defer srv.mu.Unlock()
		for c := range srv.conns {
			c.conn.Close()
		}
	})
	defer late.Stop()
	srv.ended.Wait()
}
