package main

// The table of settings and how each type of value is read and checked. Where
// values come from, and which source wins, is in config.go.

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// What storeSync says besides an interval.
const (
	syncAlways time.Duration = 0  // a batch is answered once it is on stable storage
	syncNever  time.Duration = -1 // the system writes when it likes
)

// maxDuration bounds every duration, so that small multiples of one cannot overflow.
const maxDuration = 365 * 24 * time.Hour

// A config holds every setting of the program. Nothing changes it after loadConfig.
type config struct {
	mode          string // one of modes
	version, help bool   // -version, -h: nothing else was looked at
	file          string // -config, empty where it was not given
	sampleBets    int    // rows that mode sample prints

	id int // agency, 1 to 255; 0 where a mode that does not need it was given none

	serverAddress string // host:port that clients connect to
	serverHost    string // address that the server binds, empty: all
	serverPort    int    // 0: the system chooses

	loopAmount     int // batches, 0: until the file ends
	loopPeriod     time.Duration
	batchMaxAmount int // bets
	batchWindow    int // batches unanswered at once

	dataFile, dataRejects, dataSource string // {id} replaced where id is known
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

	// origins says where each setting that is not at its default was found, by
	// key: "-id", "CLI_ID" or "config.yaml:12".
	origins map[string]string
}

// A setting is one row of the table that flags, environment, config file and -h
// are all driven by.
type setting struct {
	key      string   // the flag's name and the path in the config file
	env      []string // environment variables, the first one set counts
	def      string   // default, read like any other text
	noDef    string   // said in place of def where there is no such text
	flagOnly bool     // not to be found in the config file
	modes    string   // modes whose config line shows it
	help     string
	value    settingValue
}

// A settingValue is how one type of setting is read, checked and shown.
type settingValue struct {
	takes   string // completes "takes …" in errors and -h
	isBool  bool   // the flag alone means true
	integer bool   // YAML's octal and hexadecimal numbers are read as such
	set     func(c *config, text string) error
	get     func(c *config) string
}

// modes lists what -mode takes, in the order of -h.
var modes = []struct{ name, help string }{
	{"server", "take bets and store them"},
	{"client", "send an agency's file"},
	{"bet", "send one bet, from NOMBRE APELLIDO DOCUMENTO NACIMIENTO NUMERO in the environment"},
	{"cat", "print the stored bets"},
	{"health", "exit 0 when the server at server.address answers, else 1"},
	{"sample", "print a synthetic agency file (same arguments, same bytes)"},
}

// settings is the table, each row with its key, environment, default, modes,
// help and type. To add a setting: a field in config, a row here, and a row in
// the tests of precedence. Its order is that of -h and of the config line.
var settings = []setting{
	{key: "mode", flagOnly: true, noDef: "none; always needed", help: "what to do",
		value: modeValue(func(c *config) *string { return &c.mode })},
	{key: "config", flagOnly: true, noDef: "config.yaml, where it exists", help: "the config file",
		value: textValue(func(c *config) *string { return &c.file }, "the name of a file", notEmpty)},
	{key: "version", flagOnly: true, def: "false", help: "print the version and do nothing else",
		value: boolValue(func(c *config) *bool { return &c.version })},
	{key: "bets", flagOnly: true, def: "1000", help: "rows that mode sample prints", modes: "sample",
		value: intValue(func(c *config) *int { return &c.sampleBets }, 0, 1_000_000_000)},
	{key: "id", env: []string{"CLI_ID"}, noDef: "none; 1 in mode sample", modes: "sample",
		help:  "the agency; needed by client and bet",
		value: intValue(func(c *config) *int { return &c.id }, 1, 255)},
	{key: "server.address", env: []string{"CLI_SERVER_ADDRESS"}, def: "127.0.0.1:12345", modes: "client bet health",
		help:  "where clients connect",
		value: textValue(func(c *config) *string { return &c.serverAddress }, "host:port, the port from 1 to 65535", checkAddress)},
	{key: "server.host", env: []string{"SERVER_HOST"}, noDef: "empty (all)", modes: "server",
		help:  "address that the server binds",
		value: textValue(func(c *config) *string { return &c.serverHost }, "a host name or address without a port", checkHost)},
	{key: "server.port", env: []string{"SERVER_PORT"}, def: "12345", modes: "server",
		help:  "port that the server binds; 0 lets the system choose, and the log says which",
		value: intValue(func(c *config) *int { return &c.serverPort }, 0, 65535)},
	{key: "loop.amount", env: []string{"CLI_LOOP_AMOUNT"}, def: "0", modes: "client",
		help:  "batches that a client sends at most; 0: until the file ends",
		value: intValue(func(c *config) *int { return &c.loopAmount }, 0, math.MaxInt32)},
	{key: "loop.period", env: []string{"CLI_LOOP_PERIOD"}, def: "0s", modes: "client",
		help:  "pause after each batch",
		value: durationValue(func(c *config) *time.Duration { return &c.loopPeriod }, 0)},
	{key: "batch.maxAmount", env: []string{"CLI_BATCH_MAX_AMOUNT"}, def: "150", modes: "client",
		help:  "bets in a batch at most; 8,192 bytes are the limit whatever it says",
		value: intValue(func(c *config) *int { return &c.batchMaxAmount }, 1, 65535)},
	{key: "batch.window", env: []string{"CLI_BATCH_WINDOW"}, def: "32", modes: "client",
		help:  "batches that a client keeps unanswered at once; 1: wait for each answer",
		value: intValue(func(c *config) *int { return &c.batchWindow }, 1, 1024)},
	{key: "data.file", env: []string{"CLI_DATA_FILE"}, def: ".data/agency-{id}.csv", modes: "client",
		help:  "the client's CSV; {id} stands for the agency",
		value: textValue(func(c *config) *string { return &c.dataFile }, "the name of a file", notEmpty)},
	{key: "data.rejects", env: []string{"CLI_DATA_REJECTS"}, def: "agency-{id}.rejected.csv", modes: "client",
		help:  "where the client writes bets that were refused",
		value: textValue(func(c *config) *string { return &c.dataRejects }, "the name of a file", notEmpty)},
	{key: "data.source", env: []string{"CLI_DATA_SOURCE"}, noDef: "base name of data.file", modes: "client",
		help:  "name under which the server remembers how far this file got",
		value: textValue(func(c *config) *string { return &c.dataSource }, "1 to 255 bytes of UTF-8", checkSource)},
	{key: "resume", env: []string{"CLI_RESUME"}, def: "true", modes: "client",
		help:  "go on where the server stands; false: for servers that know BET, ACK and BATCH alone",
		value: boolValue(func(c *config) *bool { return &c.resume })},
	{key: "retry.timeout", env: []string{"CLI_RETRY_TIMEOUT"}, def: "30s", modes: "client bet",
		help:  "how long a client keeps trying a server that is away; 0s: once",
		value: durationValue(func(c *config) *time.Duration { return &c.retryTimeout }, 0)},
	{key: "log.level", env: []string{"CLI_LOG_LEVEL", "LOGGING_LEVEL"}, def: "INFO", modes: "server client bet",
		help:  "least level that is logged",
		value: levelValue(func(c *config) *slog.Level { return &c.logLevel })},
	{key: "bets.maxNumber", env: []string{"BETS_MAX_NUMBER"}, def: "9998", modes: "server client",
		help:  "highest number that is valid",
		value: intValue(func(c *config) *int { return &c.maxNumber }, 0, 65535)},
	{key: "store.path", env: []string{"STORE_PATH"}, def: "bets.csv", modes: "server cat",
		help:  "the server's file of bets",
		value: textValue(func(c *config) *string { return &c.storePath }, "the name of a file", notEmpty)},
	{key: "store.sync", env: []string{"STORE_SYNC"}, def: "always", modes: "server",
		help:  "when bets go to stable storage: before each answer, that often, or never",
		value: syncValue(func(c *config) *time.Duration { return &c.storeSync })},
	{key: "conn.max", env: []string{"CONN_MAX"}, def: "1024", modes: "server",
		help:  "connections at once; one more waits in the listen queue",
		value: intValue(func(c *config) *int { return &c.connMax }, 1, 1_000_000)},
	{key: "conn.idle", env: []string{"CONN_IDLE"}, def: "60s", modes: "server client",
		help:  "time for a message or an answer to pass whole; between messages 10 times this",
		value: durationValue(func(c *config) *time.Duration { return &c.connIdle }, 1)},
	{key: "draw.agencies", env: []string{"DRAW_AGENCIES"}, def: "0", modes: "server client",
		help:  "agencies that must finish before the draw; 0: no draw; client: over 0, ask for winners",
		value: intValue(func(c *config) *int { return &c.drawAgencies }, 0, 255)},
	{key: "draw.winner", env: []string{"DRAW_WINNER"}, def: "7574", modes: "server",
		help:  "the winning number",
		value: intValue(func(c *config) *int { return &c.drawWinner }, 0, 65535)},
}

// modeValue takes the name of a mode.
func modeValue(at func(*config) *string) settingValue {
	var names []string
	for _, m := range modes {
		names = append(names, m.name)
	}
	last := len(names) - 1
	return textValue(at, strings.Join(names[:last], ", ")+" or "+names[last], func(text string) error {
		for _, name := range names {
			if text == name {
				return nil
			}
		}
		return fmt.Errorf("is not a mode")
	})
}

// textValue takes what check accepts. Control characters are refused always:
// they would tear the log and hide in a file's name.
func textValue(at func(*config) *string, takes string, check func(text string) error) settingValue {
	return settingValue{
		takes: takes,
		set: func(c *config, text string) error {
			if strings.ContainsFunc(text, unicode.IsControl) {
				return fmt.Errorf("has a control character")
			}
			*at(c) = text
			return check(text)
		},
		get: func(c *config) string { return *at(c) },
	}
}

// notEmpty takes any text at all: whether a file can be opened is found out when it is.
func notEmpty(text string) error {
	if text == "" {
		return fmt.Errorf("is empty")
	}
	return nil
}

// checkAddress takes what a client can dial.
func checkAddress(text string) error {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return fmt.Errorf("is not an address with a port")
	}
	n, err := parseInteger(port)
	if err != nil {
		return fmt.Errorf("has a port that %w", err)
	}
	if n < 1 || n > 65535 {
		return fmt.Errorf("has a port that is out of range")
	}
	return nil
}

// checkHost refuses an address with a port or brackets, which the server would
// wrap in brackets once more and then fail to bind.
func checkHost(text string) error {
	if _, err := netip.ParseAddr(text); err != nil && strings.ContainsAny(text, ":[]/") {
		return fmt.Errorf("is not a host")
	}
	return nil
}

// checkSource keeps to what a HELLO message may carry.
func checkSource(text string) error {
	const most = 255 // bytes
	switch {
	case text == "":
		return fmt.Errorf("is empty")
	case len(text) > most:
		return fmt.Errorf("is %d bytes long", len(text))
	case !utf8.ValidString(text):
		return fmt.Errorf("is not UTF-8")
	}
	return nil
}

// parseInteger takes a decimal number with an optional sign. Its error does not
// repeat the text.
func parseInteger(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("is out of range")
	}
	// ParseFloat takes more than a user calls a number: inf, nan, 1_000.
	if _, err := strconv.ParseFloat(text, 64); err == nil && strings.Trim(text, "0123456789.eE+-") == "" {
		return 0, fmt.Errorf("is not a whole number")
	}
	return 0, fmt.Errorf("is not a number")
}

// intValue takes a decimal number from low to high.
func intValue(at func(*config) *int, low, high int64) settingValue {
	return settingValue{
		takes:   fmt.Sprintf("%d to %d", low, high),
		integer: true,
		set: func(c *config, text string) error {
			// Compared as 64 bits: an int of a 32-bit board would wrap before the check.
			n, err := parseInteger(text)
			if err == nil && (n < low || n > high) {
				err = fmt.Errorf("is out of range")
			}
			*at(c) = int(n)
			return err
		},
		get: func(c *config) string { return strconv.Itoa(*at(c)) },
	}
}

// boolValue takes the spellings of YAML's core schema from every source.
func boolValue(at func(*config) *bool) settingValue {
	return settingValue{
		takes:  "true or false",
		isBool: true,
		set: func(c *config, text string) error {
			switch text {
			case "true", "True", "TRUE":
				*at(c) = true
			case "false", "False", "FALSE":
				*at(c) = false
			default:
				return fmt.Errorf("is neither true nor false")
			}
			return nil
		},
		get: func(c *config) string { return strconv.FormatBool(*at(c)) },
	}
}

// parseDuration takes a Go duration from low to maxDuration.
func parseDuration(text string, low time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	switch {
	case err == nil && (d < low || d > maxDuration):
		return 0, fmt.Errorf("is out of range")
	case err == nil:
		return d, nil
	}
	// The most common mistake gets its own word: seconds are not assumed.
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return 0, fmt.Errorf("has no unit")
	}
	return 0, fmt.Errorf("is not a duration")
}

// durationValue takes a duration from low, which is 0 or the least over it.
func durationValue(at func(*config) *time.Duration, low time.Duration) settingValue {
	takes := "a duration like 1m30s or 200ms, from 0s to 8760h"
	if low > 0 {
		takes = "a duration like 1m30s or 200ms, over 0s and up to 8760h"
	}
	return settingValue{
		takes: takes,
		set: func(c *config, text string) (err error) {
			*at(c), err = parseDuration(text, low)
			return err
		},
		get: func(c *config) string { return at(c).String() },
	}
}

// syncValue takes an interval, or syncAlways and syncNever by name.
func syncValue(at func(*config) *time.Duration) settingValue {
	return settingValue{
		takes: "always, never, or a duration like 200ms, over 0s and up to 8760h",
		set: func(c *config, text string) (err error) {
			switch text {
			case "always":
				*at(c) = syncAlways
			case "never":
				*at(c) = syncNever
			default:
				*at(c), err = parseDuration(text, 1)
			}
			return err
		},
		get: func(c *config) string {
			switch *at(c) {
			case syncAlways:
				return "always"
			case syncNever:
				return "never"
			}
			return at(c).String()
		},
	}
}

// levelValue takes a level's name in any case; WARN is short for WARNING.
func levelValue(at func(*config) *slog.Level) settingValue {
	names := map[slog.Level]string{
		slog.LevelDebug: "DEBUG", slog.LevelInfo: "INFO", slog.LevelWarn: "WARNING", slog.LevelError: "ERROR",
	}
	return settingValue{
		takes: "DEBUG, INFO, WARNING or ERROR",
		set: func(c *config, text string) error {
			for level, name := range names {
				if strings.EqualFold(text, name) || (level == slog.LevelWarn && strings.EqualFold(text, "WARN")) {
					*at(c) = level
					return nil
				}
			}
			return fmt.Errorf("is not a level")
		},
		get: func(c *config) string { return names[*at(c)] },
	}
}

// nearestKey returns the key most like word among the settings, or among those
// that a config file may hold. A word may also be like a key's last part, or
// like the group before it, at the price of one edit.
func nearestKey(word string, flags bool) string {
	best, least := "", math.MaxInt
	for _, s := range settings {
		if s.flagOnly && !flags {
			continue
		}
		d := editDistance(word, s.key)
		if group, name, ok := strings.Cut(s.key, "."); ok {
			d = min(d, 1+editDistance(word, group), 1+editDistance(word, name))
		}
		if d < least {
			best, least = s.key, d
		}
	}
	return best
}

// editDistance counts the letters to insert, delete or change that make a into
// b, upper and lower case being alike (Levenshtein). A long a is cut: it is like
// no key anyway.
func editDistance(a, b string) int {
	short, long := []rune(strings.ToLower(b)), []rune(strings.ToLower(a[:min(len(a), 64)]))
	row := make([]int, len(short)+1) // row[j]: distance of long[:i] to short[:j]
	for j := range row {
		row[j] = j
	}
	for i, r := range long {
		diagonal := row[0]
		row[0] = i + 1
		for j, q := range short {
			change := diagonal
			if r != q {
				change++
			}
			diagonal = row[j+1] // of the row above, before it is overwritten
			row[j+1] = min(change, diagonal+1, row[j]+1)
		}
	}
	return row[len(short)]
}
