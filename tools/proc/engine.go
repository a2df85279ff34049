package proc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The replicated engine that keeps the log of several servers is somebody else's program. Tests
// and tools start real ones, with the configuration that an operator is given.

const (
	// EngineModule is what `go install` makes the engine from: make engine.
	EngineModule = "github.com/nats-io/nats-server/v2@v2.15.2"
	// EngineUser may do what a server of tp0 has to, EngineAdmin all that an operator does.
	EngineUser, EnginePassword   = "tp0", "office"
	EngineAdmin, EngineAdminPass = "admin", "operator"

	// engineTimeout is how long engines may take until a quorum of them is ready.
	engineTimeout = 60 * time.Second
	// enginePoll is the pause between two looks at whether they are.
	enginePoll = 20 * time.Millisecond
	// maxAnswer is how many bytes of an answer of an engine's monitoring port are read.
	maxAnswer = 8 << 20
)

// NATSServer returns the path of the engine's program: what NATS_SERVER names, or else where PATH,
// Go's folder for programs or EngineFolder have it.
func NATSServer() (string, error) {
	if named := os.Getenv("NATS_SERVER"); named != "" {
		return exec.LookPath(named)
	}
	if path, err := exec.LookPath("nats-server"); err == nil {
		return path, nil
	}
	folders := []string{EngineFolder(), os.Getenv("GOBIN")}
	if out, err := exec.Command("go", "env", "GOPATH").Output(); err == nil {
		for _, path := range filepath.SplitList(strings.TrimSpace(string(out))) {
			folders = append(folders, filepath.Join(path, "bin"))
		}
	}
	for _, folder := range folders {
		if folder == "" {
			continue
		}
		if path, err := exec.LookPath(filepath.Join(folder, "nats-server")); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no engine: there is no nats-server in NATS_SERVER, PATH, Go's bin or " + EngineFolder() +
		" (make engine installs it there)")
}

// EngineFolder is where make engine puts the engine's program, outside the module.
func EngineFolder() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "tp0", "bin")
}

// InstallEngine makes the engine's program in EngineFolder, unless there is one already.
func InstallEngine(ctx context.Context) (string, error) {
	if path, err := NATSServer(); err == nil {
		return path, nil
	}
	cmd := exec.CommandContext(ctx, "go", "install", EngineModule)
	cmd.Dir = os.TempDir() // outside the module
	// GOOS and its like say what tp0 is built for; the engine runs here.
	cmd.Env = append(os.Environ(), "GOBIN="+EngineFolder(), "CGO_ENABLED=0", "GOFLAGS=",
		"GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install %s: %w: %s", EngineModule, err, out)
	}
	return NATSServer()
}

// Engines are engines that keep streams together.
type Engines struct {
	All     []*Engine
	program string

	// ByHand is read-held while a stream is changed by hand, which takes all engines and is not
	// asked for twice, and held by who takes an engine away beside that.
	ByHand sync.RWMutex
}

// An Engine is one of them. It may be killed and started again; its addresses stay.
type Engine struct {
	*Process        // nil: it has not been started
	Name     string // engine-1
	Dir      string // holds its configuration, its log and its store
	Listen   string // where clients connect
	Monitor  string // its monitoring port
	cluster  string // where the other engines connect
	program  string
	env      []string
	starts   int         // how many logs there are
	away     atomic.Bool // it was ended or paused on purpose; false says that Process is there
}

// StartEngines starts n engines in folders of their own in dir, one that is alone or a cluster of
// three, and waits until they are ready. Each edit changes the configuration of each: deploy/nats'
// own. The engines end with this process, or by Stop.
func StartEngines(dir string, n int, edits ...func(engine int, config string) string) (*Engines, error) {
	program, err := NATSServer()
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		e, err := startEngines(program, dir, n, edits)
		if err == nil || try == 5 || !strings.Contains(err.Error(), "address already in use") {
			return e, err
		}
	}
}

func startEngines(program, dir string, n int, edits []func(int, string) string) (*Engines, error) {
	config, err := engineConfig(n)
	if err != nil {
		return nil, err
	}
	es := &Engines{program: program}
	var routes []string
	for i := range n {
		e := &Engine{Name: fmt.Sprintf("engine-%d", i+1), program: program}
		e.Dir = filepath.Join(dir, e.Name)
		for _, at := range []*string{&e.Listen, &e.Monitor, &e.cluster} {
			if *at, err = freeAddress(); err != nil {
				return nil, err
			}
		}
		routes = append(routes, fmt.Sprintf("ENGINE_ROUTE_%d=nats://%s", i+1, e.cluster))
		es.All = append(es.All, e)
	}
	for i, e := range es.All {
		text := config
		for _, edit := range edits {
			text = edit(i, text)
		}
		if err := os.MkdirAll(e.Dir, 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(e.config(), []byte(text), 0o600); err != nil {
			return nil, err
		}
		e.env = append(append(os.Environ(), "ENGINE_NAME="+e.Name, "ENGINE_LISTEN="+e.Listen,
			"ENGINE_CLUSTER="+e.cluster, "ENGINE_HTTP="+e.Monitor, "ENGINE_STORE="+e.Store(),
			"ENGINE_PASSWORD="+EnginePassword, "ENGINE_ADMIN_PASSWORD="+EngineAdminPass), routes...)
	}
	for _, e := range es.All {
		if err = e.Start(); err != nil {
			break
		}
	}
	if err == nil {
		err = es.Ready()
	}
	if err != nil {
		es.Kill()
		return nil, err
	}
	return es, nil
}

// engineConfig returns the configuration that an operator is given. One engine alone has no
// cluster.
func engineConfig(n int) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy", "nats", "engine.conf"))
	config := string(text)
	if err != nil || n == 3 {
		return config, err
	}
	before, rest, found := strings.Cut(config, "\ncluster {")
	_, after, closed := strings.Cut(rest, "\n}\n")
	if n != 1 || !found || !closed {
		return "", fmt.Errorf("%d engines: takes 1 or 3, and a configuration with one part cluster", n)
	}
	return before + "\n" + after, nil
}

// moduleRoot returns the folder of go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if filepath.Dir(dir) == dir {
			return "", errors.New("there is no go.mod here or above")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}

// freeAddress returns an address on this machine that nobody listens at. It is none of those that
// the system gives to connections, so that it stays free while an engine is down.
func freeAddress() (string, error) {
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000))
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no free port was found in 1,000 tries")
}

// Servers returns where clients connect, for stream.servers.
func (es *Engines) Servers() string { return es.list(func(e *Engine) string { return e.Listen }) }

// Monitors returns the monitoring ports, for stream.monitor.
func (es *Engines) Monitors() string { return es.list(func(e *Engine) string { return e.Monitor }) }

func (es *Engines) list(of func(*Engine) string) string {
	var all []string
	for _, e := range es.All {
		all = append(all, of(e))
	}
	return strings.Join(all, ",")
}

// Ready waits until all engines that nobody has ended or paused answer, are at the end of all
// streams, and have a leader among them.
func (es *Engines) Ready() error {
	for end := time.Now().Add(engineTimeout); ; time.Sleep(enginePoll) {
		err := es.ready()
		if err == nil {
			return nil
		}
		for _, e := range es.All {
			if !e.away.Load() && e.Ended() {
				return e.Failed(errors.New("ended too early"))
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("the engines are not ready after %v: %w", engineTimeout, err)
		}
	}
}

// ready returns nil if they do so now.
func (es *Engines) ready() error {
	for _, e := range es.All {
		if e.away.Load() {
			continue
		}
		if _, err := e.Get("/healthz"); err != nil {
			return err
		}
		var facts JSZ
		if err := e.Query("/jsz", &facts); err != nil {
			return err
		}
		leads := func(other *Engine) bool { return other.Name == facts.Meta.Leader && !other.away.Load() }
		if len(es.All) > 1 && !slices.ContainsFunc(es.All, leads) {
			return fmt.Errorf("%s knows no leader that is there", e.Name)
		}
	}
	return nil
}

// Leader returns the engine that leads a stream, nil if none does.
func (es *Engines) Leader(stream string) *Engine {
	for _, e := range es.All {
		if e.away.Load() {
			continue
		}
		facts, err := e.Stream(stream)
		for _, leader := range es.All {
			if err == nil && (facts.Cluster.Leader == leader.Name || facts.Cluster.Leader == "" && len(es.All) == 1) {
				return leader
			}
		}
	}
	return nil
}

// Stop ends all engines that run, and waits for them.
func (es *Engines) Stop() {
	for _, e := range es.All {
		if e.Running() {
			e.Stop()
		}
	}
}

// Kill ends all engines that run as a crash of their processes does.
func (es *Engines) Kill() {
	for _, e := range es.All {
		if e.Running() {
			e.Kill()
		}
	}
}

// JSZ is what an engine says at its monitoring port's /jsz, as far as it is of use here.
type JSZ struct {
	Meta struct {
		Leader string `json:"leader"`
	} `json:"meta_cluster"`
	Accounts []struct {
		Streams []StreamFacts `json:"stream_detail"`
	} `json:"account_details"`
}

// StreamFacts is what an engine says of its own replica of a stream.
type StreamFacts struct {
	Name    string `json:"name"`
	Cluster struct {
		Leader string `json:"leader"`
	} `json:"cluster"`
	State struct {
		Messages uint64 `json:"messages"`
		Bytes    uint64 `json:"bytes"`
		FirstSeq uint64 `json:"first_seq"`
		LastSeq  uint64 `json:"last_seq"`
		Deleted  uint64 `json:"num_deleted"`
	} `json:"state"`
}

// Start starts the engine, again if it has ended. It does not wait until it is ready.
func (e *Engine) Start() error {
	if e.starts++; e.Running() {
		return fmt.Errorf("%s runs already", e.Name)
	}
	p, err := Start(context.Background(), filepath.Join(e.Dir, fmt.Sprintf("start-%d.log", e.starts)), e.env,
		e.program, "-c", e.config())
	if err == nil {
		p.Name = e.Name
		e.Process = p
		e.away.Store(false)
	}
	return err
}

// Stop has the engine end in order, and waits until it has.
func (e *Engine) Stop() error {
	e.away.Store(true)
	return e.Process.Stop()
}

// Kill ends the engine as a crash of its process does.
func (e *Engine) Kill() {
	e.away.Store(true)
	e.Process.Kill()
}

// Running reports whether the engine's process is there.
func (e *Engine) Running() bool { return e.Process != nil && !e.Ended() }

// Store is the folder of the engine's records.
func (e *Engine) Store() string { return filepath.Join(e.Dir, "store") }

// Wipe takes all records from an engine that has ended.
func (e *Engine) Wipe() error { return os.RemoveAll(e.Store()) }

// Blocks returns the files in which the engine keeps the records of a stream, in their order.
func (e *Engine) Blocks(stream string) []string {
	files, _ := filepath.Glob(filepath.Join(e.Store(), "jetstream", "*", "streams", stream, "msgs", "*.blk"))
	return files
}

func (e *Engine) config() string { return filepath.Join(e.Dir, "engine.conf") }

// Stream returns what the engine says of its own replica of a stream.
func (e *Engine) Stream(name string) (facts StreamFacts, err error) {
	var all JSZ
	if err := e.Query("/jsz?accounts=1&streams=1", &all); err != nil {
		return facts, err
	}
	for _, account := range all.Accounts {
		for _, facts := range account.Streams {
			if facts.Name == name {
				return facts, nil
			}
		}
	}
	return facts, fmt.Errorf("%s has no stream %s", e.Name, name)
}

// Query asks the engine's monitoring port, and puts what it says into facts.
func (e *Engine) Query(path string, facts any) error {
	text, err := e.Get(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, facts)
}

// Get returns what the engine's monitoring port says.
func (e *Engine) Get(path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	at := url.URL{Scheme: "http", Host: e.Monitor}
	request, err := http.NewRequestWithContext(ctx, "GET", at.String()+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s%s: %s: %s", e.Name, path, answer.Status, text)
	}
	return text, err
}
