// Tp0 sends a lottery agency's bets to the lottery's central office, and is that office.
//
//	tp0 -mode=server                    take bets
//	tp0 -mode=client -id=1              send .data/agency-1.csv
//	tp0 -mode=bet    -id=1              send one bet, from the environment: NOMBRE APELLIDO
//	                                    DOCUMENTO NACIMIENTO NUMERO
//	tp0 -mode=check  -id=1              say what a client would send and what would be refused
//	tp0 -mode=cat                       print the stored bets
//	tp0 -mode=verify                    check all that a store holds, and print what it is
//	tp0 -mode=forget -id=1              have a stopped server forget a source, data.source
//	tp0 -mode=replicate                 put the store into the stream that servers share
//	tp0 -mode=health                    exit 0 when the server at server.address answers, else 1
//	tp0 -mode=sample -id=1 -bets=1000   print a synthetic agency file
//	tp0 -mode=keys   -agencies=5        make the keys of a server and of agencies 1 to 5
//	tp0 -version
//	tp0 -h                              all settings
//
// The files, in reading order. Each uses only what files below it declare (layout_test.go
// holds it to that):
//
//	main.go      modes, signals, exit codes
//	audit.go     mode check: what a client would send
//	replicate.go mode replicate: a store becomes a stream's first records
//	server.go    the life of the server: accept, drain
//	conn.go      one connection, a handler for each message
//	answer.go    the answers that a connection owes, each until what it is about is on disk
//	decide.go    a BATCH to what is stored and what is refused
//	status.go    the status page, over HTTP (status_off.go: a build without it)
//	metrics.go   the metrics
//	page.go      what the page says
//	figures.go   all figures of the page and the metrics, at one moment
//	presence.go  how an agency does
//	standing.go  the figures of servers that share a log
//	verify.go    mode verify: whether all that a store holds agrees
//	client.go    the life of the client: sessions, each a connection; what is sent again
//	ask.go       what is asked beside: winners, modes bet and health
//	window.go    batches in flight
//	link.go      one connection to a server; when to try again
//	agency.go    the agency file, and how far it got
//	rejects.go   the file of refused records
//	hints.go     what a file seems to be that is no agency file
//	batch.go     records into batches: the one place for the 8,192 bytes
//	recover.go   the start of a store, after whatever crash
//	join.go      what the start of a store on a shared log looks at
//	store.go     intake, fencing, the committer, what becomes of a group
//	follow.go    a server that stands by: it follows the shared log, and claims the term
//	intake.go    what connections ask of the store: bets, sources, who has finished
//	term.go      which of several servers takes bets
//	group.go     a group of messages, and the sources and sessions in it
//	ledger.go    the log and the bets file in step, checkpoints
//	stream.go    one stream of the engine as a log (stream_off.go: a build without it)
//	jetstream.go what the engine is asked about one stream, and what it answers
//	monitor.go   the engine's monitoring ports (monitor_off.go: a build without HTTP)
//	replicas.go  whether the engine keeps what it is trusted with
//	nats.go      a connection to a replicated engine, whichever of its servers is there
//	natslink.go  one connection to one of its servers: greeting, requests, the end
//	natscall.go  one request, and its answers
//	natswire.go  the engine's text protocol, as bytes
//	record.go    the state, the log's record and the snapshot: their forms on disk
//	source.go    how far each source got, and how many are remembered
//	walscan.go   the start of the redo log: replay, and what is damage
//	wal.go       the redo log
//	shared.go    what a log that servers share has to do, its replicas, a record not settled there
//	counts.go    what is counted: bets, batches, commits, connections, warnings
//	disk.go      all that the store asks of the operating system (disk_linux.go, disk_other.go;
//	             locks and limits: disk_unix.go, disk_nolock.go)
//	gate.go      strangers at the port, and whose key is known (keys_off.go: a build without TLS)
//	tls.go       TLS on both sides, and what goes wrong with it
//	keys.go      key files, the file of known keys, mode keys
//	lottery.go   who has finished, the draw, the winners
//	buffers.go   what connections read into, and how messages are cut from it
//	proto.go     the messages on the wire, and how long they may be
//	reader.go    the CSV of an agency file
//	bet.go       a bet, and what is wrong with it
//	config.go    where settings come from: flags, environment, file
//	settings.go  the settings and their table
//	values.go    what a setting takes: how a value is read, checked and shown
//	yaml.go      the subset of YAML
//	notify.go    what systemd is told: ready, stopping, alive
//	log.go       the lines of the log
//	progress.go  the bar on a terminal (progress_linux.go asks for its width)
//	text.go      numbers, sizes and times as people read them
//	sample.go    synthetic agency files
//	version.go   what was built
//	memory.go    the limit of memory of a container
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// The exit statuses.
const (
	exitDone   = 0 // also after a signal, and when some bets were refused: the summary says so
	exitFailed = 1 // the work failed; in mode bet: the bet was refused
	exitUsage  = 2 // the command line, the environment or the config file is wrong
)

// main alone calls os.Exit (and the second signal, in catchSignals).
func main() {
	os.Exit(run(os.Args[1:]))
}

// run is the program without its exit.
func run(args []string) int {
	cfg, err := loadConfig(args, os.LookupEnv)
	switch {
	case err != nil:
		return explain(err)
	case cfg.help:
		usage(os.Stdout)
		return exitDone
	case cfg.version:
		fmt.Println(versionLine())
		return exitDone
	}
	heedMemoryLimit(os.DirFS("/"))
	out := newLineWriter(os.Stdout, os.Stderr)
	log := newLogger(out, cfg.logLevel)
	ctx := context.Background()
	switch cfg.mode {
	case "server", "client", "bet", "replicate":
		// The others have nothing to close: a signal ends them as it ends any program.
		ctx = catchSignals(log)
	}
	err = runMode(ctx, cfg, log, out)
	if ctx.Err() != nil && (err == nil || errors.Is(err, errStopped)) {
		log.Info(actShutdown, success)
	}
	out.drain()
	return explain(err)
}

// runMode runs the mode.
func runMode(ctx context.Context, cfg *config, log *slog.Logger, out *lineWriter) error {
	switch cfg.mode {
	case "server":
		return runServer(ctx, cfg, log)
	case "client":
		return runClient(ctx, cfg, log, out)
	case "bet":
		b, err := betFrom(cfg.id, os.LookupEnv)
		if err != nil {
			return err
		}
		return runBet(ctx, cfg, b, log)
	case "check":
		return runCheck(cfg, os.Stdout)
	case "cat":
		return catStore(cfg.storePath, os.Stdout)
	case "verify":
		return runVerify(cfg, os.Stdout)
	case "forget":
		return runForget(ctx, cfg, log)
	case "health":
		return runHealth(ctx, cfg)
	case "replicate":
		return runReplicate(ctx, cfg, log, out)
	case "keys":
		return runKeys(cfg, os.Stdout, os.Stderr)
	}
	return writeSample(os.Stdout, max(cfg.id, 1), cfg.sampleBets)
}

// explain prints an error in one line and returns the exit status.
//
// Errors come here with all that a user needs in them: what failed, on what, why, what to do.
func explain(err error) int {
	if err == nil || errors.Is(err, errStopped) {
		return exitDone
	}
	tellError(os.Stderr, err.Error())
	var use *usageError
	if errors.As(err, &use) {
		return exitUsage
	}
	return exitFailed
}

// catchSignals returns a context that the first SIGTERM or SIGINT cancels. The second one
// ends the program at once, whatever the log does. That needs a handler, since a process
// with pid 1 gets no signal that it does not handle. A log that is gone (SIGPIPE) ends
// nothing.
func catchSignals(log *slog.Logger) context.Context {
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		first := <-signals
		go func() {
			number, _ := first.(syscall.Signal)
			log.Info(actReceiveSignal, success, "signal_number", int(number))
			cancel()
		}()
		<-signals
		os.Exit(exitFailed)
	}()
	return ctx
}
