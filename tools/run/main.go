// Run shows the exercise whole: five agencies send their files at full speed to a server on a
// free port, and what was stored is counted afterwards from the files, not taken from what the
// programs say.
//
//	go run ./tools/run            make sample files where there are none, run, count, compare
//	go run ./tools/run -samples   only make the sample files
//	go run ./tools/run -cluster   the same past one machine (cluster.go)
//
// It wants ./tp0 built, reads .data/agency-N.csv and leaves everything else in a fresh folder,
// run/. The exit status is 0 only if every process ended with 0 and all numbers agree. Settings
// that it does not fix itself may come from the environment: CLI_BATCH_WINDOW=1 make run. With
// TLS=1 there all of them have keys, which are made first; nothing else is different.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"tp0/tools/proc"
)

// sampleSizes holds the bets of each agency in the course's data set, agency 1 first.
var sampleSizes = []int{26936, 25518, 16014, 9238, 991}

const (
	// winningNumber is given to the server and counted in bets.csv.
	winningNumber = 7574

	// startTimeout is how long a server may take until it listens; recovery has nothing to do in
	// a fresh folder.
	startTimeout = 15 * time.Second

	// runTimeout is how long the clients may take, many times what a slow board needs. A run that
	// hangs has failed.
	runTimeout = 10 * time.Minute
)

// A lottery is one run: where the files are and where its output goes.
type lottery struct {
	program string        // path of tp0
	dataDir string        // holds agency-N.csv
	runDir  string        // made anew for each run
	sizes   []int         // bets in the sample file of each agency, agency 1 first
	tls     bool          // all processes have keys
	period  time.Duration // loop.period of the clients
	bets    string        // the file of bets that is counted
	killed  bool          // servers were killed meanwhile
	out     io.Writer     // what is going on, and the table
}

func main() {
	samples := flag.Bool("samples", false, "only make the sample files that are missing")
	past := flag.Bool("cluster", false, "two servers and three engines, of which one each is killed on the way")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	l := &lottery{program: "./tp0", dataDir: ".data", runDir: "run", bets: "run/bets.csv", sizes: sampleSizes,
		tls: os.Getenv("TLS") == "1", out: os.Stdout}
	err := l.makeSamples(ctx)
	switch {
	case err != nil || *samples: // the containers want the files alone
	case *past:
		err = l.runCluster(ctx)
	default:
		err = l.run(ctx)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "run: %v\n", err)
		os.Exit(1)
	}
}

// dataFile names the agency file of an agency.
func (l *lottery) dataFile(id int) string {
	return filepath.Join(l.dataDir, fmt.Sprintf("agency-%d.csv", id))
}

// rejectsFile names the file where the client of an agency writes what was refused.
func (l *lottery) rejectsFile(id int) string {
	return filepath.Join(l.runDir, fmt.Sprintf("agency-%d.rejected.csv", id))
}

// makeSamples writes an agency file of the course's size for each agency that has none.
func (l *lottery) makeSamples(ctx context.Context) error {
	if err := os.MkdirAll(l.dataDir, 0o755); err != nil {
		return err
	}
	for i, bets := range l.sizes {
		// Whatever is there is the user's: the course's data set, say.
		path := l.dataFile(i + 1)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := proc.Sample(ctx, l.program, path, i+1, bets); err != nil {
			return err
		}
		fmt.Fprintf(l.out, "made %s: %s bets\n", path, grouped(bets))
	}
	return nil
}

// run lets all agencies send their files, then counts. It returns an error if anything failed or
// disagrees.
func (l *lottery) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends what still runs when something fails
	// The draw is once a store, and what is counted has to be of this run: nothing of the last
	// one stays.
	if err := l.freshFolder(); err != nil {
		return err
	}
	if err := l.makeKeys(); err != nil {
		return err
	}
	server, port, err := l.startServer(ctx, filepath.Join(l.runDir, "server.log"), l.bets, "0", nil)
	if err != nil {
		return err
	}
	defer server.Stop() // on every way out; the stop below is the one whose result counts
	fmt.Fprintf(l.out, "server listens on port %s, its log is %s\n", port, server.Log)
	results, took, err := l.sendAll(ctx, "127.0.0.1:"+port, server.Done)
	stopped := server.Stop()
	if ctx.Err() != nil { // whatever else failed, failed because of that
		return errors.New("interrupted; all processes were stopped")
	}
	if err = errors.Join(stopped, err); err != nil {
		return err
	}
	fmt.Fprintf(l.out, "server stopped with status 0\n\n")
	return l.settle(results, took)
}

// freshFolder empties the folder of the last run. The config file in it is empty, so that the
// exercise's slow settings in ./config.yaml do not count here.
func (l *lottery) freshFolder() error {
	if err := os.RemoveAll(l.runDir); err != nil {
		return err
	}
	if err := os.MkdirAll(l.runDir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(l.configFile(), nil, 0o644)
}

// makeKeys makes the keys of all processes, if they are to have any, and says where they are in
// the environment that the processes will have: the server's own arguments come before it.
func (l *lottery) makeKeys() error {
	if !l.tls {
		return nil
	}
	program, err := filepath.Abs(l.program)
	if err != nil {
		return err
	}
	cmd := exec.Command(program, "-mode=keys", "-agencies="+strconv.Itoa(len(l.sizes)))
	cmd.Dir = l.runDir
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making keys: %w: %s", err, output)
	}
	return os.Setenv("TLS_CERT", l.keyFile("agency-{id}.pem"))
}

// keyFile names a file of keys.
func (l *lottery) keyFile(name string) string { return filepath.Join(l.runDir, "keys", name) }

// configFile names the empty config file of the run.
func (l *lottery) configFile() string { return filepath.Join(l.runDir, "config.yaml") }

// startServer starts the server on this machine's own address: nobody else can send it bets that
// the table would have to explain. It returns once the server listens, with its port, which the
// system chooses where it is "0".
func (l *lottery) startServer(ctx context.Context, log, bets, port string, env []string) (*proc.Process, string, error) {
	args := []string{"-mode=server",
		"-config=" + l.configFile(), "-log.level=INFO", "-server.host=127.0.0.1", "-server.port=" + port,
		"-store.path=" + bets,
		"-draw.agencies=" + strconv.Itoa(len(l.sizes)), "-draw.winner=" + strconv.Itoa(winningNumber)}
	if l.tls {
		args = append(args, "-tls.cert="+l.keyFile("server.pem"), "-tls.known="+l.keyFile("known"))
	}
	server, err := proc.Start(ctx, log, env, l.program, args...)
	if err != nil {
		return nil, "", err
	}
	if port, err = server.WaitFor("listen", "port", startTimeout); err != nil {
		return nil, "", errors.Join(err, server.Stop())
	}
	return server, port, nil
}

// startClient starts the client of one agency at full speed: no limit to its batches, no pause
// between them, and batches as full as 8,192 bytes allow.
func (l *lottery) startClient(ctx context.Context, id int, address string) (*proc.Process, error) {
	return proc.Start(ctx, filepath.Join(l.runDir, fmt.Sprintf("client-%d.log", id)), nil, l.program, "-mode=client",
		"-config="+l.configFile(), "-log.level=INFO", "-id="+strconv.Itoa(id), "-server.address="+address,
		"-data.file="+l.dataFile(id), "-data.rejects="+l.rejectsFile(id),
		"-loop.amount=0", "-loop.period="+l.period.String(), "-batch.maxAmount=150", "-draw.agencies="+strconv.Itoa(len(l.sizes)))
}

// sendAll runs the clients of all agencies at once and returns what each said at its end, and the
// time from the first start to the last end. A client that fails ends the others, since the draw
// would never come; so does the end of the server.
func (l *lottery) sendAll(ctx context.Context, address string, serverDone <-chan struct{}) ([]said, time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, runTimeout, fmt.Errorf("not done within %v", runTimeout))
	defer cancel()
	begin := time.Now()
	var clients []*proc.Process
	for id := range l.sizes {
		client, err := l.startClient(ctx, id+1, address)
		if err != nil {
			cancel()
			return nil, 0, errors.Join(err, waitAll(clients))
		}
		clients = append(clients, client)
	}
	fmt.Fprintf(l.out, "%d clients send their files, their logs are %s\n", len(clients),
		filepath.Join(l.runDir, "client-N.log"))
	// Without this the clients would try a dead server for retry.timeout.
	go func() {
		select {
		case <-serverDone:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := l.awaitClients(ctx, clients, begin, cancel); err != nil {
		return nil, 0, err
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil, 0, context.Cause(ctx) // they were stopped, which they take for a good end
	}
	took := time.Since(begin)
	results, err := readSaid(clients)
	return results, took, err
}

// awaitClients waits for all clients, in the order in which they end. It calls cancel when one
// fails and returns that failure alone: the others were stopped because of it.
func (l *lottery) awaitClients(ctx context.Context, clients []*proc.Process, begin time.Time, cancel func()) error {
	type ending struct {
		name string
		err  error
	}
	endings := make(chan ending)
	for _, c := range clients {
		go func() { endings <- ending{c.Name, c.Wait()} }()
	}
	var failed error
	for range clients {
		e := <-endings
		switch {
		case e.err == nil && ctx.Err() != nil:
			// It was stopped: no news.
		case e.err == nil:
			fmt.Fprintf(l.out, "%s ended with status 0 after %.2f s\n", e.name, time.Since(begin).Seconds())
		case failed == nil:
			failed = e.err
			cancel()
		}
	}
	return failed
}

// waitAll waits for processes that were told to stop.
func waitAll(processes []*proc.Process) error {
	var errs []error
	for _, p := range processes {
		errs = append(errs, p.Wait())
	}
	return errors.Join(errs...)
}
