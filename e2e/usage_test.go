package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// TestE2EUsage has wrong command lines, environments and config files: exit status 2 and one line
// that names the key, where it was found, and what it takes.
func TestE2EUsage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, dir, "tab.yaml", "loop:\n\tamount: 1\n")
	writeFile(t, dir, "typo.yaml", "# a comment\nlop:\n  amount: 1\n")
	writeFile(t, dir, "bad.yaml", "loop:\n  amount: many\n")
	for _, tt := range []struct {
		name string
		env  []string
		args []string
		errs []string
	}{
		{"nothing", nil, nil, []string{"mode", "server"}},
		{"unknown mode", nil, []string{"-mode=sever"}, []string{"-mode", "sever", "server"}},
		{"unknown flag", nil, []string{"-mode=server", "-lop.amount=1"}, []string{"-lop.amount", "-loop.amount"}},
		{"argument", nil, []string{"-mode=server", "now"}, []string{"now"}},
		{"bad flag", nil, []string{"-mode=server", "-server.port=70000"}, []string{"-server.port", "70000", "65535"}},
		{"bad duration", nil, []string{"-mode=client", "-id=1", "-loop.period=5"}, []string{"-loop.period", "unit"}},
		{"bad environment", []string{"CLI_LOOP_AMOUNT=-1"}, []string{"-mode=client", "-id=1"},
			[]string{"CLI_LOOP_AMOUNT", "loop.amount", "-1"}},
		{"bad environment that a flag hides", []string{"CLI_RESUME=maybe"},
			[]string{"-mode=client", "-id=1", "-resume=true"}, []string{"CLI_RESUME", "maybe"}},
		{"no id", nil, []string{"-mode=client"}, []string{"id", "CLI_ID", "1 to 255"}},
		{"id out of range", nil, []string{"-mode=client", "-id=256"}, []string{"-id", "256", "1 to 255"}},
		{"config file is missing", nil, []string{"-mode=server", "-config=missing.yaml"}, []string{"missing.yaml"}},
		{"tab in the config file", nil, []string{"-mode=server", "-config=tab.yaml"}, []string{"tab.yaml:2"}},
		{"unknown key in the config file", nil, []string{"-mode=server", "-config=typo.yaml"},
			[]string{"typo.yaml:2", "lop", "loop"}},
		{"bad value in the config file", nil, []string{"-mode=client", "-id=1", "-config=bad.yaml"},
			[]string{"bad.yaml:2", "loop.amount", "many"}},
		{"a bet without its variables", nil, []string{"-mode=bet", "-id=1"}, []string{"NOMBRE"}},
		{"a bet whose number is none", []string{"NOMBRE=a", "APELLIDO=b", "DOCUMENTO=1", "NACIMIENTO=2000-01-01",
			"NUMERO=x"}, []string{"-mode=bet", "-id=1"}, []string{"NUMERO", "x"}},
		{"a line break in an argument", nil, []string{"-mode=a\nb"}, []string{"-mode"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, errs, status := runProgram(t, dir, tt.env, tt.args...)
			if status != exitUsage || out != "" {
				t.Errorf("got status %d and %q on standard output, want 2 and nothing", status, out)
			}
			wantOneLine(t, "standard error", errs, tt.errs...)
		})
	}
}

// TestE2EOrigins takes one setting from each source, the better ones before the others, and shows
// where it was found.
func TestE2EOrigins(t *testing.T) {
	t.Parallel()
	dir, _ := clientDir(t, 3)
	writeFile(t, dir, "config.yaml",
		"loop:\n  amount: 7\nbatch:\n  maxAmount: 8\nlog:\n  level: INFO\nconn:\n  idle: 9s\n")
	env := []string{"CLI_BATCH_MAX_AMOUNT=12", "CLI_ID=1", "CLI_DATA_FILE=agency-{id}.csv", "CLI_RETRY_TIMEOUT=0s",
		"CLI_LOOP_PERIOD="}
	c := launchCommand(t, "client", programCommand(dir, env, "-mode=client", "-batch.window=3",
		fmt.Sprintf("-server.address=127.0.0.1:%d", freePort(t))))
	c.wantExit(exitFailed)
	values := c.waitFor("action: config | result: success | client_id: 1 |")
	origins := c.waitFor("action: config_origin | result: success |")
	for _, want := range []struct{ key, value, origin string }{
		{"loop_amount", "7", "config.yaml line 2"},
		{"batch_maxAmount", "12", "CLI_BATCH_MAX_AMOUNT"},
		{"batch_window", "3", "-batch.window"},
		{"data_file", "agency-1.csv", "CLI_DATA_FILE"},
		{"data_rejects", "agency-1.rejected.csv", ""},
		{"loop_period", "0s", ""},
	} {
		if value, origin := field(values, want.key), field(origins, want.key); value != want.value ||
			origin != want.origin {
			t.Errorf("%s: got %q from %q, want %q from %q", want.key, value, origin, want.value, want.origin)
		}
	}
	o := openOffice(t) // its folder has no config file, but it is given flags
	o.waitFor("action: config | result: success", "draw_winner: 7574")
	if got := field(o.waitFor("action: config_origin"), "server_host"); got != "-server.host" {
		t.Errorf("got server_host from %q, want -server.host", got)
	}
	o.stop()
}

// settingsTable has the key of each setting and the variables of the environment that it is read
// from.
const settingsTable = `
id CLI_ID
server.address CLI_SERVER_ADDRESS
server.host SERVER_HOST
server.port SERVER_PORT
loop.amount CLI_LOOP_AMOUNT
loop.period CLI_LOOP_PERIOD
batch.maxAmount CLI_BATCH_MAX_AMOUNT
batch.window CLI_BATCH_WINDOW
data.file CLI_DATA_FILE
data.rejects CLI_DATA_REJECTS
data.source CLI_DATA_SOURCE
data.skip CLI_DATA_SKIP
rejects.max CLI_REJECTS_MAX
resume CLI_RESUME
retry.timeout CLI_RETRY_TIMEOUT
log.level CLI_LOG_LEVEL LOGGING_LEVEL
bets.maxNumber BETS_MAX_NUMBER
store.path STORE_PATH
store.sync STORE_SYNC
conn.max CONN_MAX
conn.idle CONN_IDLE
draw.agencies DRAW_AGENCIES
draw.winner DRAW_WINNER
`

// TestE2EHelp has what prints something and exits with 0.
func TestE2EHelp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out, errs, status := runProgram(t, dir, []string{"CLI_ID=nonsense"}, "-h")
	if status != exitDone || errs != "" {
		t.Errorf("-h: got status %d and %q, want 0 and nothing", status, errs)
	}
	for _, setting := range strings.Split(strings.TrimSpace(settingsTable), "\n") {
		for _, name := range strings.Fields(setting) {
			if !strings.Contains(out, " "+name+" ") && !strings.Contains(out, " "+name+",") {
				t.Errorf("-h: got nothing of %s in the line of %q", name, setting)
			}
		}
	}
	if out, _, status := runProgram(t, dir, nil, "-version"); status != exitDone ||
		!regexp.MustCompile(`^tp0 `+builtVersion+` \(.*go1\.\S+, \w+/\w+.*\)\n$`).MatchString(out) {
		t.Errorf("-version: got status %d and %q", status, out)
	}
	first, _, status := runProgram(t, dir, nil, "-mode=sample", "-id=4", "-bets=500")
	second, _, _ := runProgram(t, dir, nil, "-mode=sample", "-id=4", "-bets=500")
	if status != exitDone || first != second || strings.Count(first, "\r\n") != 500 {
		t.Errorf("-mode=sample: got status %d, the same bytes %v, %d rows, want 0, the same, 500", status,
			first == second, strings.Count(first, "\r\n"))
	}
}

// TestE2EModeBet sends single bets, good and bad.
func TestE2EModeBet(t *testing.T) {
	t.Parallel()
	o := openOffice(t)
	for _, tt := range []struct {
		name    string
		env     []string
		id      string
		status  int
		line    string
		refused string
	}{
		{"good", []string{"NOMBRE=Santiago Lionel", "APELLIDO=Lorca", "DOCUMENTO=30904465", "NACIMIENTO=1999-03-17",
			"NUMERO=2201"}, "1", exitDone,
			"action: apuesta_enviada | result: success | dni: 30904465 | numero: 2201", ""},
		{"quotes", []string{"NOMBRE=Ana, \"la\"", "APELLIDO=Paz", "DOCUMENTO=2", "NACIMIENTO=2000-02-29", "NUMERO=0"},
			"255", exitDone,
			"action: apuesta_enviada | result: success | dni: 2 | numero: 0", ""},
		{"refused", []string{"NOMBRE=Ana", "APELLIDO=Paz", "DOCUMENTO=2", "NACIMIENTO=2001-02-29", "NUMERO=0"}, "1",
			exitFailed,
			"action: apuesta_enviada | result: fail | dni: 2 | numero: 0", "birthdate is not a real date"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := launchCommand(t, "bet", programCommand(t.TempDir(), append(tt.env, "CLI_SERVER_ADDRESS="+o.address()),
				"-mode=bet", "-id="+tt.id))
			b.wantExit(tt.status)
			b.waitFor(tt.line)
			if tt.status == exitDone {
				b.wantNoFail()
			} else {
				wantOneLine(t, "standard error", b.errs.String(), tt.refused)
			}
		})
	}
	o.waitFor("action: apuesta_almacenada | result: success | dni: 30904465 | numero: 2201")
	wantHealth(t, o.address(), exitDone)
	o.stop()
	out, errs, status := runProgram(t, o.dir, nil, "-mode=cat")
	want := "1,Santiago Lionel,Lorca,30904465,1999-03-17,2201\r\n255,\"Ana, \"\"la\"\"\",Paz,2,2000-02-29,0\r\n"
	if out != want || errs != "" || status != exitDone {
		t.Errorf("cat: got %q, %q and status %d, want %q, nothing and 0", out, errs, status, want)
	}
}
