package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var updateConfig = flag.Bool("update-config", false, "write testdata/config anew from what the program prints")

// loadTestConfig runs loadConfig in an empty folder where config.yaml holds file, or
// where there is none if file is empty.
func loadTestConfig(t *testing.T, file string, env map[string]string, args ...string) (*config, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if file != "" {
		if err := os.WriteFile(defaultConfigFile, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return loadConfig(args, func(name string) (string, bool) {
		text, ok := env[name]
		return text, ok
	})
}

// mustLoadConfig is loadTestConfig for what has to succeed.
func mustLoadConfig(t *testing.T, file string, env map[string]string, args ...string) *config {
	t.Helper()
	c, err := loadTestConfig(t, file, env, args...)
	if err != nil {
		t.Fatalf("%v, %q: got error %v, want none", args, file, err)
	}
	return c
}

// settingSamples holds four texts for each setting of the config file, none of them
// its default: for the file, the second and the first environment variable, and
// the flag, as get shows them.
var settingSamples = map[string][4]string{
	"id":              {"2", "3", "4", "5"},
	"server.address":  {"a:1", "b:2", "[::1]:3", ":65535,a:1,b:2"},
	"server.host":     {"a", "::1", "0.0.0.0", "fe80::1%eth0"},
	"server.port":     {"0", "1", "2", "65535"},
	"loop.amount":     {"1", "2", "3", "2147483647"},
	"loop.period":     {"1s", "2ms", "1m30s", "8760h0m0s"},
	"batch.maxAmount": {"1", "2", "3", "65535"},
	"batch.window":    {"1", "2", "3", "1024"},
	"data.file":       {"a", "b c", "ñ", "d:e#f"},
	"data.rejects":    {"a", "b c", "ñ", "d:e#f"},
	"data.source":     {"a", "b c", "ñ", "d:e#f"},
	"data.skip":       {"1", "2", "3", "100"},
	"rejects.max":     {"1", "2", "3", "2147483647"},
	"resume":          {"false", "false", "false", "false"},
	"retry.timeout":   {"0s", "1s", "2s", "3s"},
	"log.level":       {"DEBUG", "WARNING", "ERROR", "DEBUG"},
	"bets.maxNumber":  {"0", "1", "2", "65535"},
	"store.path":      {"a", "b", "c", "d"},
	"store.sync":      {"never", "200ms", "1ns", "1h0m0s"},
	"conn.max":        {"1", "2", "3", "1000000"},
	"conn.idle":       {"1ns", "2s", "3s", "4s"},
	"draw.agencies":   {"1", "2", "3", "255"},
	"draw.winner":     {"0", "1", "2", "65535"},
	"tls.cert":        {"a.pem", "b.pem", "c.pem", "d.pem"},
	"tls.known":       {"a", "b", "c", "d"},
	"status.address":  {":0", "localhost:1", "[::1]:2", "127.0.0.1:65535"},
	"status.hosts":    {"a", "b,c", "office.example", "d"},
	"stream.servers":  {"a:1", "a:1,b:2", "[::1]:3", "c:65535"},
	"stream.name":     {"A", "b-c", "d_e", "0"},
	"stream.user":     {"a", "b", "c", "d"},
	"stream.password": {"a", "b", "c", "d"},
	"stream.token":    {"a", "b", "c", "d"},
	"stream.ca":       {"a.pem", "b.pem", "c.pem", "d.pem"},
	"stream.monitor":  {"a:1", "a:1,b:2", "[::1]:3", "c:65535"},
}

// TestPrecedence adds one source after the other, the weakest first, for every
// setting of the table.
func TestPrecedence(t *testing.T) {
	for _, s := range settingsOf(new(config)) {
		if s.flagOnly {
			continue
		}
		texts, ok := settingSamples[s.key]
		if !ok {
			t.Errorf("%s: got no samples, want 4", s.key)
			continue
		}
		t.Run(s.key, func(t *testing.T) {
			args, file, env := []string{"-mode=cat"}, "", map[string]string{}
			want := func(value, origin string) {
				t.Helper()
				c := mustLoadConfig(t, file, env, args...)
				if got := shownSetting(c, s.key); got != value || c.origins[s.key] != origin {
					t.Errorf("got %q from %q, want %q from %q", got, c.origins[s.key], value, origin)
				}
			}
			if s.noDef == "" {
				c := mustLoadConfig(t, file, env, args...)
				want(shownSetting(c, s.key), "")
			}
			file = "# a comment\n" + nestedYAML(s.key, texts[0])
			want(texts[0], fmt.Sprintf("config.yaml:%d", strings.Count(file, "\n")))
			for i, name := range slices.Backward(strings.Fields(s.env)) {
				env[name] = texts[2-i]
				want(texts[2-i], name)
			}
			args = append(args, "-"+s.key+"="+texts[3])
			want(texts[3], "-"+s.key)
		})
	}
}

// shownSetting returns the value of a setting as text.
func shownSetting(c *config, key string) string {
	return (&loader{table: settingsOf(c)}).find(key).value.get()
}

// nestedYAML writes one setting the way config.yaml does.
func nestedYAML(key, text string) string {
	group, name, ok := strings.Cut(key, ".")
	if !ok {
		return fmt.Sprintf("%s: %q\n", key, text)
	}
	return fmt.Sprintf("%s:\n  %s: %q\n", group, name, text)
}

func TestDefaults(t *testing.T) {
	c := mustLoadConfig(t, "", nil, "-mode=client", "-id=7")
	want := &config{
		mode: "client", sampleBets: 1000, id: 7,
		serverAddress: "127.0.0.1:12345", serverPort: 12345,
		batchMaxAmount: 150, batchWindow: 32,
		dataFile: ".data/agency-7.csv", dataRejects: "agency-7.rejected.csv", dataSource: "agency-7.csv",
		resume: true, retryTimeout: 30 * time.Second,
		logLevel: slog.LevelInfo, maxNumber: 9998,
		storePath: "bets.csv", storeSync: syncAlways,
		connMax: 1024, connIdle: time.Minute, drawWinner: 7574,
		stream:  streamSettings{name: "TP0"},
		origins: map[string]string{"mode": "-mode", "id": "-id"},
	}
	maps.DeleteFunc(c.origins, func(_, origin string) bool { return origin == "" })
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, want %+v", c, want)
	}
}

// TestCourseFile reads the repository's own config.yaml.
func TestCourseFile(t *testing.T) {
	text, err := os.ReadFile(defaultConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	c := mustLoadConfig(t, string(text), nil, "-mode=server")
	maps.DeleteFunc(c.origins, func(_, origin string) bool { return origin == "" })
	got := fmt.Sprintln(c.serverAddress, c.loopAmount, c.loopPeriod, c.logLevel, c.batchMaxAmount, len(c.origins)-1)
	if want := "127.0.0.1:12345 100 1s INFO 10 5\n"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// configAccepted holds files and arguments with the value that one key has then.
var configAccepted = []struct{ name, file, arg, key, want string }{
	{"plain number", "batch:\n  maxAmount: 7", "", "batch.maxAmount", "7"},
	{"quoted number", "batch:\n  maxAmount: '7'", "", "batch.maxAmount", "7"},
	{"octal", "batch:\n  maxAmount: 0o17", "", "batch.maxAmount", "15"},
	{"hexadecimal", "batch:\n  maxAmount: 0x1F", "", "batch.maxAmount", "31"},
	{"leading zeros", "batch:\n  maxAmount: 007", "", "batch.maxAmount", "7"},
	{"sign", "batch:\n  maxAmount: +7", "", "batch.maxAmount", "7"},
	{"dotted key", "batch.maxAmount: 7", "", "batch.maxAmount", "7"},
	{"a number as text", "store:\n  path: 0x1F", "", "store.path", "0x1F"},
	{"true as text", "store:\n  path: true", "", "store.path", "true"},
	{"plain address", "server:\n  address: a:1 # b", "", "server.address", "a:1"},
	{"plain bool", "resume: False", "", "resume", "false"},
	{"quoted bool", "resume: 'FALSE'", "", "resume", "false"},
	{"zero without a unit", "loop:\n  period: 0", "", "loop.period", "0s"},
	{"always", "store:\n  sync: always", "", "store.sync", "always"},
	{"level in lower case", "log:\n  level: debug", "", "log.level", "DEBUG"},
	{"level cut short", "log:\n  level: Warn", "", "log.level", "WARNING"},
	{"a group of comments", "log:\n#  level: DEBUG\nresume: false", "", "resume", "false"},
	{"empty host", "server:\n  host: ''", "", "server.host", ""},
	{"empty file", "---\n", "", "batch.maxAmount", "150"},
	{"flag alone", "resume: false", "-resume", "resume", "true"},
	{"flag with a value", "", "-resume=false", "resume", "false"},
	{"two dashes", "", "--id=9", "id", "9"},
	{"255 bytes", "", "-data.source=" + strings.Repeat("x", 255), "data.source", strings.Repeat("x", 255)},
}

func TestConfigAccepted(t *testing.T) {
	for _, test := range configAccepted {
		t.Run(test.name, func(t *testing.T) {
			args := []string{"-mode=server"}
			if test.arg != "" {
				args = append(args, test.arg)
			}
			c := mustLoadConfig(t, test.file, nil, args...)
			if got := shownSetting(c, test.key); got != test.want {
				t.Errorf("%s: got %q, want %q", test.key, got, test.want)
			}
		})
	}
}

// takesYAML is what the error says of all that is outside the subset.
const takesYAML = "takes key: value on one line, with a space after the colon and quotes where they are needed; " +
	"no list, flow or block form, anchor, tag, directive or second document"

// fileRefused holds config files and the whole error.
var fileRefused = []struct{ file, want string }{
	{"batch:\n\n  maxAmount: many", `config.yaml:3: batch.maxAmount: "many" is not a whole number: takes 1 to 65535`},
	{"batch:\n  maxAmount: '0x1F'", `config.yaml:2: batch.maxAmount: "0x1F" is not a whole number: takes 1 to 65535`},
	{"batch:\n  maxAmount: 1e3", `config.yaml:2: batch.maxAmount: "1e3" is not a whole number: takes 1 to 65535`},
	{"batch:\n  maxAmount: 1_000", `config.yaml:2: batch.maxAmount: "1_000" is not a whole number: takes 1 to 65535`},
	{"batch:\n  maxAmount: ' 7'", `config.yaml:2: batch.maxAmount: " 7" is not a whole number: takes 1 to 65535`},
	{"batch:\n  maxAmount: .inf", `config.yaml:2: batch.maxAmount: ".inf" is not a whole number: takes 1 to 65535`},
	{"batch:\n  maxAmount: inf", `config.yaml:2: batch.maxAmount: "inf" is not a whole number: takes 1 to 65535`},
	{"batch:\n  maxAmount: 0", `config.yaml:2: batch.maxAmount: "0" is out of range: takes 1 to 65535`},
	{"batch:\n  maxAmount: 99999999999999999999",
		`config.yaml:2: batch.maxAmount: "99999999999999999999" is out of range: takes 1 to 65535`},
	{"batch:\n  maxAmount: ''", `config.yaml:2: batch.maxAmount: "" is not a whole number: takes 1 to 65535`},
	{"batch:\n  maxAmount:", `config.yaml:2: batch.maxAmount: no value: takes 1 to 65535`},
	{"batch:\n  maxAmount: ~", `config.yaml:2: batch.maxAmount: no value: takes 1 to 65535`},
	{"batch:\n  maxAmount:\n    x: 1", `config.yaml:2: batch.maxAmount: is a setting, not a group: takes 1 to 65535`},
	{"resume: yes", `config.yaml:1: resume: "yes" is neither true nor false: takes true or false`},
	{"log: INFO", `config.yaml:1: log: is a group, not a setting: takes log.level, indented below it`},
	{"loop:\n  period: 5",
		`config.yaml:2: loop.period: "5" is not a duration with a unit: ` +
			`takes a duration like 1m30s or 200ms, from 0s to 8760h`},
	{"batch:\n  maxamount: 7", `config.yaml:2: unknown key "batch.maxamount" (nearest: batch.maxAmount)`},
	{"Batch:\n  maxAmount: 7", `config.yaml:1: unknown key "Batch" (nearest: batch.maxAmount)`},
	{"srever:\n  adress: x:1", `config.yaml:1: unknown key "srever" (nearest: server.address)`},
	{"# c\nperiod: 1s", `config.yaml:2: unknown key "period" (nearest: loop.period)`},
	{"loop:\n  periods: 1s", `config.yaml:2: unknown key "loop.periods" (nearest: loop.period)`},
	{"mode: server", `config.yaml:1: unknown key "mode" (nearest: id)`},
	{"log:\n  level: a: b", `config.yaml:2: cannot read "a: b": ` + takesYAML},
	{"# c\nserver: {port: 1}", `config.yaml:2: cannot read "{port: 1}": ` + takesYAML},
	{"loop:\n\tamount: 1", `config.yaml:2: a tab in the indentation: use spaces`},
	{"id: 1\nid: 2", `config.yaml:2: duplicate key "id": it stands on line 1 already`},
}

const (
	takesModes   = "takes server, client, bet, check, cat, verify, forget, health, sample, keys or replicate"
	takesServers = "host:port, the port from 1 to 65535, or several with commas between"
)

// argsRefused holds arguments, an environment variable or none, and the whole error.
var argsRefused = []struct{ args, env, want string }{
	{"", "", "-mode: not given: " + takesModes},
	{"-mode=sever", "",
		`-mode: "sever" is not a mode: ` + takesModes},
	{"-mode=client", "", "id: not set by -id, CLI_ID or config file: -mode=client needs it: takes 1 to 255"},
	{"-mode=bet", "", "id: not set by -id, CLI_ID or config file: -mode=bet needs it: takes 1 to 255"},
	{"-mode=bet -id=256", "", `-id: "256" is out of range: takes 1 to 255`},
	{"-mode=bet -id=01", "", `-id: "01" has a sign or zeros in front: takes 1 to 255`},
	{"-mode=bet", "CLI_ID=+1", `CLI_ID: id: "+1" has a sign or zeros in front: takes 1 to 255`},
	{"-mode=bet -id", "", "-id: no value: takes 1 to 255"},
	{"-mode=bet", "CLI_ID=one", `CLI_ID: id: "one" is not a whole number: takes 1 to 255`},
	{"-mode=bet -id=1", "CLI_ID=one", `CLI_ID: id: "one" is not a whole number: takes 1 to 255`},
	{"-mode=cat", "LOGGING_LEVEL=CRITICAL",
		`LOGGING_LEVEL: log.level: "CRITICAL" is not a level: takes DEBUG, INFO, WARNING or ERROR`},
	{"-mode=cat -batch.maxamount=7", "", `unknown flag "-batch.maxamount" (nearest: -batch.maxAmount; -h lists all)`},
	{"-mode=cat -resume false", "", `unexpected argument "false": settings are written -key=value (-h lists them)`},
	{"-mode=cat -resume=1", "", `-resume: "1" is neither true nor false: takes true or false`},
	{"-mode=cat -=1", "", "bad flag syntax: -=1 (-h lists all flags)"},
	{"-mode=cat -config=none.yaml", "",
		"config: open none.yaml: no such file or directory: takes a file that can be read"},
	{"-mode=cat -config=.", "", "config: read .: is a directory: takes a file that can be read"},
	{"-mode=cat -config=", "", `-config: "" is empty: takes the name of a file`},
	{"-mode=cat -server.address=host", "",
		`-server.address: "host" is not an address with a port: takes ` + takesServers},
	{"-mode=cat -server.address=host:0", "",
		`-server.address: "host:0" has a port that is out of range: takes ` + takesServers},
	{"-mode=cat -server.address=host:http", "",
		`-server.address: "host:http" has a port that is not a whole number: takes ` + takesServers},
	{"-mode=cat -server.address=a:1,,b:2", "",
		`-server.address: "a:1,,b:2" is not an address with a port: takes ` + takesServers},
	{"-mode=cat -server.address=a:1,b:0", "",
		`-server.address: "a:1,b:0" has a port that is out of range: takes ` + takesServers},
	{"-mode=cat -server.host=a:1", "",
		`-server.host: "a:1" is not a host: takes a host name or address without a port`},
	{"-mode=cat -conn.idle=0s", "",
		`-conn.idle: "0s" is out of range: takes a duration like 1m30s or 200ms, from 1ns to 8760h`},
	{"-mode=cat -store.sync=0s", "",
		`-store.sync: "0s" is out of range: takes always, never, or a duration like 200ms, over 0s and up to 8760h`},
	{"-mode=cat -loop.period=-1s", "",
		`-loop.period: "-1s" is out of range: takes a duration like 1m30s or 200ms, from 0s to 8760h`},
	{"-mode=cat -store.path=a\x01b", "", `-store.path: "a\x01b" has a control character: takes the name of a file`},
	{"-mode=cat -data.source=\xff", "", `-data.source: "\xff" is not UTF-8: takes 1 to 255 bytes of UTF-8`},
	{"-mode=cat -stream.servers=a:1,b", "",
		`-stream.servers: "a:1,b" has a part that is no address with a port: "b": ` +
			"takes host:port, with commas between where there are several"},
	{"-mode=cat -stream.monitor=:0", "", `-stream.monitor: ":0" has a part that is no address with a port: ":0": ` +
		"takes host:port, with commas between where there are several"},
	{"-mode=cat -stream.name=a.b", "", `-stream.name: "a.b" has a character that a stream's name may not have: ` +
		"takes 1 to 32 letters, digits, - and _"},
	{"-mode=cat -stream.name=", "", `-stream.name: "" is 0 bytes long: takes 1 to 32 letters, digits, - and _`},
	{"-mode=cat", "STREAM_TOKEN=hush\n",
		`STREAM_TOKEN: stream.token: "(a secret)" has a control character: takes a token, or nothing`},
	{"-mode=client -id=1 -data.file=\xff", "", `data.source: "\xff" is not UTF-8: takes 1 to 255 bytes of UTF-8`},
}

func TestConfigRefused(t *testing.T) {
	for _, test := range fileRefused {
		_, err := loadTestConfig(t, test.file, nil, "-mode=server")
		wantUsageError(t, test.file, err, test.want)
		// A better source does not hide the mistake.
		_, err = loadTestConfig(t, test.file, nil, "-mode=server", "-batch.maxAmount=3", "-resume", "-loop.period=1s")
		wantUsageError(t, test.file+" and flags", err, test.want)
	}
	for _, test := range argsRefused {
		name, text, _ := strings.Cut(test.env, "=")
		_, err := loadTestConfig(t, "", map[string]string{name: text}, strings.Fields(test.args)...)
		wantUsageError(t, test.args, err, test.want)
	}
}

func wantUsageError(t *testing.T, what string, err error, want string) {
	t.Helper()
	var usage *usageError
	if !errors.As(err, &usage) || usage.Error() != want {
		t.Errorf("%q: got %v, want %s", what, err, want)
	}
}

// TestUsageErrorLine checks that no input makes an error of two lines or of a
// screenful.
func TestUsageErrorLine(t *testing.T) {
	for _, arg := range []string{"-a\nb", "a\nb", "-id=\n\x1b[31m", "-id=" + strings.Repeat("é", 5000), "--\n=1"} {
		_, err := loadTestConfig(t, "", nil, "-mode=cat", arg)
		if err == nil || strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 300 ||
			!utf8.ValidString(err.Error()) {
			t.Errorf("%.20q: got %v, want one short line", arg, err)
		}
	}
}

// TestHelpAndVersion: neither needs a mode or looks at a broken config file.
func TestHelpAndVersion(t *testing.T) {
	if c := mustLoadConfig(t, "[", nil, "-version"); !c.version || c.help {
		t.Errorf("-version: got version %t, help %t, want true, false", c.version, c.help)
	}
	for _, args := range []string{"-h", "-help", "--help", "-mode=sever -id=x -h"} {
		if c := mustLoadConfig(t, "[", nil, strings.Fields(args)...); !c.help {
			t.Errorf("%s: got help false, want true", args)
		}
	}
}

// TestAgencyInNames: {id} stands for the agency in every name, where there is one.
func TestAgencyInNames(t *testing.T) {
	names := []string{"-data.file=d/{id}/{id}.csv", "-data.rejects=r{id}", "-mode=client"}
	show := func(c *config) string { return c.dataFile + " " + c.dataRejects + " " + c.dataSource }
	if got, want := show(mustLoadConfig(t, "id: 12", nil, names...)), "d/12/12.csv r12 12.csv"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	c := mustLoadConfig(t, "id: 12", nil, append(names, "-data.source=s-{id}")...)
	if got, want := show(c), "d/12/12.csv r12 s-12"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if c := mustLoadConfig(t, "", nil, "-mode=sample"); c.id != 1 {
		t.Errorf("sample: got id %d, want 1", c.id)
	}
}

// TestEmptyEnvironment: an empty variable counts as none.
func TestEmptyEnvironment(t *testing.T) {
	env := map[string]string{"CLI_ID": "", "CLI_LOG_LEVEL": "", "LOGGING_LEVEL": "ERROR"}
	if c := mustLoadConfig(t, "id: 3", env, "-mode=bet"); c.id != 3 || c.logLevel != slog.LevelError {
		t.Errorf("got id %d, level %v, want 3, ERROR", c.id, c.logLevel)
	}
}

// TestDescribe compares the lines of settings of each mode that has them with testdata.
func TestDescribe(t *testing.T) {
	var b strings.Builder
	file := "server:\n  address: \"server:12345\"\nloop:\n  amount: 0x64\n"
	for _, mode := range []string{"server", "client", "bet"} {
		c := mustGolden(t, file, "-mode="+mode, "-batch.maxAmount=3", "-store.path=a|b", "-id=5",
			"-data.source=lot:1.csv")
		var out bytes.Buffer
		c.logTo(newLogger(&out, slog.LevelInfo))
		for line := range strings.Lines(out.String()) {
			_, line, _ = strings.Cut(line, "action: ")
			fmt.Fprintf(&b, "%s: %s", mode, line)
		}
	}
	goldenConfig(t, "describe.txt", b.String())
}

// TestSecrets: no line of the log shows one, only whether there is one.
func TestSecrets(t *testing.T) {
	c := mustLoadConfig(t, "", map[string]string{"STREAM_TOKEN": "hush"}, "-mode=server", "-stream.password=hush")
	var out bytes.Buffer
	c.logTo(newLogger(&out, slog.LevelInfo))
	text := out.String()
	if strings.Contains(text, "hush") || !strings.Contains(text, "stream_token: set | ") ||
		!strings.Contains(text, "stream_password: set | ") || !strings.Contains(text, "stream_user: empty | ") {
		t.Errorf("got %s", text)
	}
}

// mustGolden is mustLoadConfig that stays in the package's folder, where testdata is.
func mustGolden(t *testing.T, file string, args ...string) *config {
	t.Helper()
	name := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"CLI_BATCH_WINDOW": "8", "LOGGING_LEVEL": "debug"}
	lookup := func(name string) (string, bool) { return env[name], env[name] != "" }
	c, err := loadConfig(append(args, "-config="+name), lookup)
	if err != nil {
		t.Fatal(err)
	}
	for key, origin := range c.origins { // the folder's name is another each time
		c.origins[key] = strings.ReplaceAll(origin, name, "c.yaml")
	}
	return c
}

func TestUsage(t *testing.T) {
	var b strings.Builder
	usage(&b)
	for _, line := range strings.Split(b.String(), "\n") {
		if n := utf8.RuneCountInString(line); n > 100 {
			t.Errorf("got %d columns, want at most 100: %s", n, line)
		}
	}
	goldenConfig(t, "usage.txt", b.String())
}

// goldenConfig compares got with a file of testdata/config.
func goldenConfig(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "config", name)
	if *updateConfig {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

func TestEditDistance(t *testing.T) {
	tests := []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "ABC", 0},
		{"kitten", "sitting", 3}, {"ab", "ba", 2}, {"ñu", "nu", 1},
	}
	for _, test := range tests {
		if got := editDistance(test.a, test.b); got != test.want {
			t.Errorf("%q, %q: got %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
