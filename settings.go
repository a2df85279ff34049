package main

// The settings: what they are, and the lines of the log that tell them. Where
// their values come from, and which source wins, is config.go's; how a value is
// read and checked is values.go's.

import (
	"errors"
	"log/slog"
	"math"
	"strings"
	"time"
)

// A config holds every setting of the program. Nothing changes it after loadConfig.
type config struct {
	mode          string // one of modes
	version, help bool   // -version, -h: nothing but the flags was looked at
	file          string // -config, empty where it was not given
	sampleBets    int    // rows that mode sample prints
	agencies      int    // mode keys makes the keys of a server and of agencies 1 to this; 0: of agency id alone

	id int // agency, 1 to 255; 0 where a mode that does not need it was given none

	serverAddress string // host:port that clients connect to, or several with commas between
	serverHost    string // address that the server binds, empty: all
	serverPort    int    // 0: the system chooses

	loopAmount     int // batches, 0: until the file ends
	loopPeriod     time.Duration
	batchMaxAmount int // bets
	batchWindow    int // batches unanswered at once

	dataFile, dataRejects, dataSource string // {id} and {source} replaced where they are known
	dataSkip                          int    // leading fields of a record that are not the bet's
	rejectsMax                        int    // refused records that a client goes on after; 0: any number
	resume                            bool
	retryTimeout                      time.Duration // 0: one attempt

	logLevel     slog.Level
	maxNumber    int // highest valid number of a bet
	storePath    string
	storeSync    time.Duration // syncAlways, syncNever, or the interval
	connMax      int
	connIdle     time.Duration
	drawAgencies int // 0: no draw
	drawWinner   int

	tlsCert  string // the own key file, empty: no TLS
	tlsKnown string // the server's file of known keys

	statusAddress string // of the status page, empty: none
	statusHosts   string // under which it may be asked for, with commas between

	stream streamSettings

	// origins says where each setting was found, by key: "-id", "CLI_ID" or
	// "config.yaml:12"; empty for a default.
	origins map[string]string
}

// streamSettings say where the stream is that several servers share, and who asks for it.
type streamSettings struct {
	servers  string // host:port of each engine, with commas between; empty: there is no stream
	name     string // of the stream
	user     string // and password, or token, or neither
	password string
	token    string
	ca       string // PEM file of the authorities that the engines' certificates are from; empty: no TLS
	monitor  string // host:port of each engine's monitoring port, with commas between; may be empty
}

// logTo logs what matters in this mode: a line of bare values, which the
// course's tests read, and a line of where those were found that are not
// defaults. The course takes a value from behind the last colon of its part, so
// the second line has none in its values.
func (c *config) logTo(log *slog.Logger) {
	values, origins := []any{success}, []any{success}
	if c.mode == "client" || c.mode == "bet" {
		values = append(values, "client_id", c.id)
	}
	for _, s := range settingsOf(c) {
		if !strings.Contains(" "+s.modes+" ", " "+c.mode+" ") {
			continue
		}
		key, value := strings.ReplaceAll(s.key, ".", "_"), s.value.get()
		switch {
		case value == "":
			value = s.noDef
		case s.secret:
			value = "set"
		}
		values = append(values, key, value)
		if origin := c.origins[s.key]; origin != "" {
			if at := strings.LastIndexByte(origin, ':'); at >= 0 {
				origin = strings.ReplaceAll(origin[:at], ":", " ") + " line " + origin[at+1:]
			}
			origins = append(origins, key, origin)
		}
	}
	log.Info(actConfig, values...)
	if len(origins) > 1 {
		log.Info(actConfigOrigin, origins...)
	}
}

// A setting is a row of the table that flags, environment, config file and -h
// are all driven by.
type setting struct {
	key      string // the flag's name and the path in the config file
	env      string // environment variables, with spaces between: the first one set counts
	def      string // default, read like any other text
	noDef    string // said in place of def where there is no such text
	flagOnly bool   // not to be found in the config file
	secret   bool   // neither a line of the log nor an error shows it
	modes    string // those of server, client, bet and replicate whose config line shows it
	help     string
	value    settingValue
}

// modes lists what -mode takes, in the order of -h.
var modes = []struct{ name, help string }{
	{"server", "take bets and store them"},
	{"client", "send an agency's file"},
	{"bet", "send one bet, from NOMBRE APELLIDO DOCUMENTO NACIMIENTO NUMERO in the environment"},
	{"check", "say what a client would send and what would be refused; nothing is sent or written"},
	{"cat", "print the stored bets"},
	{"verify", "check all that a store holds, beside its server or without one, and print what it is"},
	{"forget", "have a stopped server forget how far it got with data.source"},
	{"health", "exit 0 when the server at server.address answers, else 1"},
	{"sample", "print a synthetic agency file (same arguments, same bytes)"},
	{"keys", "make the keys of a server and of its agencies in ./keys"},
	{"replicate", "put the store of a stopped server into the stream, which is made where it is not there"},
}

// settingsOf returns the table of settings, whose values are the fields of c.
// To add one: a field in config, a row here, and a row in the tests of
// precedence. The order is that of -h and of the config line.
func settingsOf(c *config) []*setting {
	return []*setting{
		{key: "mode", flagOnly: true, noDef: "none; always needed",
			help: "what to do", value: modeValue(&c.mode)},
		{key: "config", flagOnly: true, noDef: "config.yaml, where it exists",
			help: "the config file", value: fileValue(&c.file)},
		{key: "version", flagOnly: true, def: "false",
			help: "print the version and do nothing else", value: boolValue(&c.version)},
		{key: "bets", flagOnly: true, def: "1000",
			help: "rows that mode sample prints", value: intValue(&c.sampleBets, 0, 1_000_000_000)},
		{key: "agencies", flagOnly: true, def: "0",
			help:  "mode keys makes the keys of a server and of agencies 1 to this; 0: one of agency id",
			value: intValue(&c.agencies, 0, 255)},
		{key: "id", env: "CLI_ID", noDef: "none; 1 in mode sample",
			help: "the agency; needed by client, bet and check", value: intValue(&c.id, 1, 255)},
		{key: "server.address", env: "CLI_SERVER_ADDRESS", def: "127.0.0.1:12345", modes: "client bet",
			help:  "where clients connect; of several, with commas between, the next is tried when one fails",
			value: serversValue(&c.serverAddress)},
		{key: "server.host", env: "SERVER_HOST", noDef: "empty (all)", modes: "server",
			help: "address that the server binds", value: hostValue(&c.serverHost)},
		{key: "server.port", env: "SERVER_PORT", def: "12345", modes: "server",
			help:  "port that the server binds; 0 lets the system choose, and the log says which",
			value: intValue(&c.serverPort, 0, 65535)},
		{key: "loop.amount", env: "CLI_LOOP_AMOUNT", def: "0", modes: "client",
			help:  "batches that a client sends at most; 0: until the file ends",
			value: intValue(&c.loopAmount, 0, math.MaxInt32)},
		{key: "loop.period", env: "CLI_LOOP_PERIOD", def: "0s", modes: "client",
			help: "pause after each batch", value: durationValue(&c.loopPeriod, 0)},
		{key: "batch.maxAmount", env: "CLI_BATCH_MAX_AMOUNT", def: "150", modes: "client",
			help:  "bets in a batch at most; 8,192 bytes are the limit whatever it says",
			value: intValue(&c.batchMaxAmount, 1, 65535)},
		{key: "batch.window", env: "CLI_BATCH_WINDOW", def: "32", modes: "client",
			help:  "batches that a client keeps unanswered at once; 1: wait for each answer",
			value: intValue(&c.batchWindow, 1, 1024)},
		{key: "data.file", env: "CLI_DATA_FILE", def: ".data/agency-{id}.csv", modes: "client",
			help: "the client's CSV; {id} stands for the agency", value: fileValue(&c.dataFile)},
		{key: "data.rejects", env: "CLI_DATA_REJECTS", def: "{source}.rejected.csv", modes: "client",
			help:  "where the client writes bets that were refused; {source} is data.source without .csv",
			value: fileValue(&c.dataRejects)},
		{key: "data.source", env: "CLI_DATA_SOURCE", noDef: "base name of data.file", modes: "client",
			help: "name under which the server remembers how far this file got", value: sourceValue(&c.dataSource)},
		{key: "data.skip", env: "CLI_DATA_SKIP", def: "0", modes: "client",
			help:  "leading fields of each record to drop; 2 sends a rejects file that was put right",
			value: intValue(&c.dataSkip, 0, 100)},
		{key: "rejects.max", env: "CLI_REJECTS_MAX", def: "0", modes: "client",
			help:  "a client that has more records refused than this stops with status 1; 0: no limit",
			value: intValue(&c.rejectsMax, 0, math.MaxInt32)},
		{key: "resume", env: "CLI_RESUME", def: "true", modes: "client",
			help:  "go on where the server stands; false: for servers that know BET, ACK and BATCH alone",
			value: boolValue(&c.resume)},
		{key: "retry.timeout", env: "CLI_RETRY_TIMEOUT", def: "30s", modes: "client bet",
			help:  "how long a client keeps trying a server that is away; 0s: once",
			value: durationValue(&c.retryTimeout, 0)},
		{key: "log.level", env: "CLI_LOG_LEVEL LOGGING_LEVEL", def: "INFO", modes: "server client bet",
			help: "least level that is logged", value: levelValue(&c.logLevel)},
		{key: "bets.maxNumber", env: "BETS_MAX_NUMBER", def: "9998", modes: "server client",
			help: "highest number that is valid", value: intValue(&c.maxNumber, 0, 65535)},
		{key: "store.path", env: "STORE_PATH", def: "bets.csv", modes: "server",
			help: "the server's file of bets", value: fileValue(&c.storePath)},
		{key: "store.sync", env: "STORE_SYNC", def: "always", modes: "server",
			help:  "when bets go to stable storage: before each answer, that often, or never",
			value: syncValue(&c.storeSync)},
		{key: "conn.max", env: "CONN_MAX", def: "1024", modes: "server",
			help:  "connections at once; one more waits in the listen queue",
			value: intValue(&c.connMax, 1, 1_000_000)},
		{key: "conn.idle", env: "CONN_IDLE", def: "60s", modes: "server client",
			help:  "time for a message or an answer to pass whole; between messages 10 times this",
			value: durationValue(&c.connIdle, time.Nanosecond)},
		{key: "draw.agencies", env: "DRAW_AGENCIES", def: "0", modes: "server client",
			help:  "agencies that must finish before the draw; 0: no draw; client: over 0, ask for winners",
			value: intValue(&c.drawAgencies, 0, 255)},
		{key: "draw.winner", env: "DRAW_WINNER", def: "7574", modes: "server",
			help: "the winning number", value: intValue(&c.drawWinner, 0, 65535)},
		{key: "tls.cert", env: "TLS_CERT", noDef: "empty (no TLS)", modes: "server client bet",
			help:  "PEM file with the own key and certificate, and a client's with its servers' certificates",
			value: textValue(&c.tlsCert, "the name of a file, or nothing", anyText)},
		{key: "tls.known", env: "TLS_KNOWN", noDef: "empty", modes: "server",
			help:  "the server's file of the keys to let in, an agency's each",
			value: textValue(&c.tlsKnown, "the name of a file, or nothing", anyText)},
		{key: "status.address", env: "STATUS_ADDRESS", noDef: "empty (none)", modes: "server",
			help:  "where the status page, the metrics and health are served over HTTP, such as 127.0.0.1:12346",
			value: addressValue(&c.statusAddress)},
		{key: "status.hosts", env: "STATUS_HOSTS", noDef: "empty", modes: "server",
			help:  "host names besides its own address under which the page may be asked for, with commas between",
			value: textValue(&c.statusHosts, "host names with commas between", anyText)},
		{key: "stream.servers", env: "STREAM_SERVERS", noDef: "empty (no stream)", modes: "server replicate",
			help:  "the engines (NATS JetStream) of the stream that several servers share, with commas between",
			value: addressesValue(&c.stream.servers)},
		{key: "stream.name", env: "STREAM_NAME", def: "TP0", modes: "server replicate",
			help: "the stream's name", value: streamNameValue(&c.stream.name)},
		{key: "stream.user", env: "STREAM_USER", noDef: "empty", modes: "server replicate",
			help:  "who the engines take this server for; with stream.password",
			value: textValue(&c.stream.user, "a user's name, or nothing", anyText)},
		{key: "stream.password", env: "STREAM_PASSWORD", noDef: "empty", secret: true, modes: "server replicate",
			help:  "the password of stream.user (everyone on this machine sees flags: better not there)",
			value: textValue(&c.stream.password, "a password, or nothing", anyText)},
		{key: "stream.token", env: "STREAM_TOKEN", noDef: "empty", secret: true, modes: "server replicate",
			help:  "what the engines ask for in place of a user and a password",
			value: textValue(&c.stream.token, "a token, or nothing", anyText)},
		{key: "stream.ca", env: "STREAM_CA", noDef: "empty (no TLS)", modes: "server replicate",
			help:  "PEM file of the authorities that the engines' certificates are from: TLS to the engines",
			value: textValue(&c.stream.ca, "the name of a file, or nothing", anyText)},
		{key: "stream.monitor", env: "STREAM_MONITOR", noDef: "empty", modes: "server replicate",
			help:  "the engines' monitoring ports, with commas between: whether each replica is synced and whole",
			value: addressesValue(&c.stream.monitor)},
	}
}

// modeValue takes the name of a mode.
func modeValue(at *string) settingValue {
	takes, last := "", len(modes)-1
	for _, m := range modes[:last] {
		takes += ", " + m.name
	}
	return textValue(at, takes[2:]+" or "+modes[last].name, func(text string) error {
		for _, m := range modes {
			if text == m.name {
				return nil
			}
		}
		return errors.New("is not a mode")
	})
}
