package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"tp0/tools/proc"
)

// TestMain lets the test binary stand in for tp0: run as a child it behaves as FAKE_TP0 says.
func TestMain(m *testing.M) {
	if trouble := os.Getenv("FAKE_TP0"); trouble != "" {
		os.Exit(fakeTP0(trouble, os.Args[1:]))
	}
	m.Run()
}

// fakeTP0 does what a run sees of tp0, with the trouble asked for. It returns its exit status.
func fakeTP0(trouble string, args []string) int {
	flags := flag.NewFlagSet("tp0", flag.ContinueOnError)
	mode, id, bets := flags.String("mode", "", ""), flags.Int("id", 0, ""), flags.Int("bets", 0, "")
	store, data, rejects := flags.String("store.path", "", ""), flags.String("data.file", "",
		""), flags.String("data.rejects", "", "")
	for _, name := range []string{"config", "log.level", "server.host", "server.port", "server.address",
		"draw.agencies",
		"draw.winner", "loop.amount", "loop.period", "batch.maxAmount"} {
		flags.String(name, "", "")
	}
	if flags.Parse(args) != nil {
		return 2
	}
	switch *mode {
	case "sample":
		for i := range *bets {
			fmt.Printf("Ana,Paz,%d,1999-03-17,%d\r\n", 10000000**id+i, 7570+i)
		}
		return 0
	case "server":
		return fakeServer(trouble, *store)
	}
	return fakeClient(trouble, *id, *data, *rejects)
}

// fakeServer stores each agency's file, rows 1 to 9, before anything is sent, and ends at SIGTERM.
func fakeServer(trouble, store string) int {
	if trouble == "server does not start" {
		fmt.Println("action: listen | result: fail | error: no port is free")
		return 1
	}
	var rows []string
	for id := 1; id <= 3; id++ {
		text, _ := os.ReadFile(fmt.Sprintf("data/agency-%d.csv", id))
		for i, row := range strings.SplitAfter(strings.TrimSuffix(string(text), "\r\n"), "\n") {
			if i < 9 && !(trouble == "row lost" && id == 2 && i == 5) {
				rows = append(rows, fmt.Sprintf("%d,%s\r\n", id, strings.TrimSuffix(row, "\r\n")))
			}
		}
	}
	os.WriteFile(store, []byte(strings.Join(rows, "")), 0o644)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	fmt.Println("action: listen | result: success | ip: 127.0.0.1 | port: 4321")
	if trouble == "server dies" {
		return 3
	}
	<-stop
	if trouble == "server ends badly" {
		return 4
	}
	return 0
}

// fakeClient says that it sent nine bets and writes the others to its rejects file.
func fakeClient(trouble string, id int, data, rejects string) int {
	if id == 2 && trouble == "client fails" {
		fmt.Println("action: connect | result: fail | error: no server")
		return 1
	}
	if trouble == "server dies" || trouble == "client fails" || trouble == "client hangs" {
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		fmt.Println("action: connect | result: in_progress")
		<-stop
		return 0
	}
	text, _ := os.ReadFile(data)
	refused := max(strings.Count(string(text), "\n")-9, 0)
	if refused > 0 {
		os.WriteFile(rejects, []byte(strings.Repeat("10,no good,a,b,c,d,e\r\n", refused)), 0o644)
	}
	sent := strings.Count(string(text), "\n") - refused
	fmt.Printf("action: apuestas_enviadas | result: success | cantidad: %d\n", sent)
	fmt.Println("action: consulta_ganadores | result: success | cant_ganadores: 1")
	if id != 3 || trouble != "winner kept back" {
		fmt.Printf("action: ganadores | result: success | documentos: %d0000004\n", id)
	}
	if trouble != "client says nothing" {
		fmt.Printf("action: loop_finished | result: success | client_id: %d "+
			"| enviadas: %d | rechazadas: %d | tiempo: 1s\n",
			id, sent, refused)
	}
	return 0
}

// newRun returns a lottery of three small agencies in a folder of the test's own, and its output.
func newRun(t *testing.T, trouble string) (*lottery, *bytes.Buffer) {
	t.Helper()
	t.Chdir(t.TempDir())
	t.Setenv("FAKE_TP0", trouble)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // a child of the race detector's would sleep a second at its end
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := new(bytes.Buffer)
	l := &lottery{program: program, dataDir: "data", runDir: "run", bets: "run/bets.csv", sizes: []int{8, 9, 11}, out: out}
	if err := l.makeSamples(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l, out
}

func TestRun(t *testing.T) {
	l, out := newRun(t, "none")
	os.MkdirAll("run", 0o755)
	os.WriteFile("run/agency-1.rejected.csv", []byte("of the last run\n"), 0o644)
	if err := l.run(t.Context()); err != nil {
		t.Fatalf("got %v, want success; output:\n%s", err, out)
	}
	want := []string{
		"made data/agency-3.csv: 11 bets\n",
		"server listens on port 4321, its log is run/server.log\n",
		"   agency   read   stored   refused   in bets.csv   winners\n" +
			"        1      8        8         0             8         1\n" +
			"        2      9        9         0             9         1\n" +
			"        3     11        9         2             9         1\n" +
			"      all     28       26         2            26         3\n",
		"winners of agency 3: 30000004\n",
		"3 agencies, 26 bets stored in ",
	}
	for _, part := range want {
		if !strings.Contains(out.String(), part) {
			t.Errorf("got output\n%s\nwant in it\n%s", out, part)
		}
	}
}

func TestRunTrouble(t *testing.T) {
	tests := []struct {
		trouble string
		want    []string // parts of the error
	}{
		{"server does not start",
			[]string{"server: ended too early; the end of run/server.log:\n" +
				"    action: listen | result: fail | error: no port"}},
		{"server dies", []string{"server: exit status 3; the end of run/server.log:\n" +
			"    action: listen"}},
		{"server ends badly", []string{"server: exit status 4"}},
		{"client fails",
			[]string{"client-2: exit status 1; the end of run/client-2.log:\n    action: connect | result: fail"}},
		{"client says nothing",
			[]string{"client-1: no `action: loop_finished | result: success` with rechazadas; " +
				"the end of run/client-1.log"}},
		{"row lost", []string{"2 figures disagree; see the logs and bets.csv in run"}},
		{"winner kept back", []string{"1 figures disagree"}},
	}
	for _, test := range tests {
		t.Run(test.trouble, func(t *testing.T) {
			l, out := newRun(t, test.trouble)
			err := l.run(t.Context())
			if err == nil {
				t.Fatalf("got success, want an error; output:\n%s", out)
			}
			for _, part := range test.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got error\n%v\nwant in it\n%s", err, part)
				}
			}
		})
	}
}

// TestRunInterrupted stops a run whose clients would never end.
func TestRunInterrupted(t *testing.T) {
	l, _ := newRun(t, "client hangs")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for { // until the last client runs
			if text, _ := os.ReadFile("run/client-3.log"); len(text) > 0 {
				cancel()
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	err := l.run(ctx)
	if got, want := fmt.Sprint(err), "interrupted; all processes were stopped"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestMakeSamples checks that a file that is there is left as it is.
func TestMakeSamples(t *testing.T) {
	l, out := newRun(t, "none")
	own := []byte("the user's own\n")
	if err := os.WriteFile(l.dataFile(2), own, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(l.dataFile(3)); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := l.makeSamples(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "made data/agency-3.csv: 11 bets\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, _ := os.ReadFile(l.dataFile(2)); !bytes.Equal(got, own) {
		t.Errorf("got %q, want %q", got, own)
	}
	if names, _ := filepath.Glob("data/*"); len(names) != 3 {
		t.Errorf("got files %q, want three agency files and nothing else", names)
	}
}

func TestCountFile(t *testing.T) {
	tests := []struct {
		name, text string
		want       int
	}{
		{"empty", "", 0},
		{"CRLF", "a,b\r\nc,d\r\n", 2},
		{"no newline at the end", "a,b\nc,d", 2},
		{"blank lines", "a\n\n\nb\n", 2},
		{"line break in quotes", "a,\"x\ny\"\nb,c\n", 2},
		{"different lengths", "a\nb,c\nd,e,f\n", 3},
		{"stray quote", "a,b\nc,d\"e\nf,g\n", 3},
	}
	for _, test := range tests {
		path := filepath.Join(t.TempDir(), "file.csv")
		if err := os.WriteFile(path, []byte(test.text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := countFile(path)
		if err != nil || got != test.want {
			t.Errorf("%s: got %d, %v, want %d", test.name, got, err, test.want)
		}
	}
	if _, err := countFile(filepath.Join(t.TempDir(), "none.csv")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v, want %v", err, os.ErrNotExist)
	}
}

func TestCountStored(t *testing.T) {
	tests := []struct {
		name, text string
		rows       []int
		winners    [][]string
		err        string
	}{
		{"nothing", "", []int{0, 0}, [][]string{nil, nil}, ""},
		{"stored order",
			"2,A,B,3,1999-01-01,7574\r\n1,A,B,1,1999-01-01,7574\r\n" +
				"2,A,B,2,1999-01-01,07574\r\n2,A,B,1,1999-01-01,7574\r\n",
			[]int{1, 3}, [][]string{{"1"}, {"3", "1"}}, ""},
		{"quoted", "1,\"A, B\nC\",D,5,1999-01-01,7574\r\n", []int{1, 0}, [][]string{{"5"}, nil}, ""},
		{"foreign agency", "1,A,B,1,1999-01-01,1\r\n3,A,B,1,1999-01-01,1\r\n", []int{1, 0}, [][]string{nil, nil},
			`line 2: got agency "3", want 1 to 2`},
		{"half a row", "1,A,B,1,19", []int{0, 0}, [][]string{nil, nil}, "record on line 1: wrong number of fields"},
	}
	for _, test := range tests {
		agencies := make([]agency, 2)
		got := ""
		if err := countStored(strings.NewReader(test.text), agencies); err != nil {
			got = err.Error()
		}
		if got != test.err {
			t.Errorf("%s: got error %q, want %q", test.name, got, test.err)
		}
		for i, a := range agencies {
			if a.rows != test.rows[i] || !slices.Equal(a.winners, test.winners[i]) {
				t.Errorf("%s: agency %d: got %d rows, winners %q, want %d, %q", test.name, i+1, a.rows, a.winners,
					test.rows[i], test.winners[i])
			}
		}
	}
}

func TestDisagreements(t *testing.T) {
	good := agency{id: 1, read: 10, refused: 2, rows: 8, winners: []string{"5"},
		said: said{stored: 8, refused: 2, count: 1, winners: []string{"5"}}}
	tests := []struct {
		name   string
		change func(*agency)
		want   []string
	}{
		{"agree", func(*agency) {}, nil},
		{"twice stored", func(a *agency) { a.rows, a.said.stored = 9, 9 },
			[]string{"stored and refused against read: got 11, want 10"}},
		{"answered, not stored", func(a *agency) { a.said.stored = 9 },
			[]string{"stored, as the server answered, against bets.csv: got 9, want 8"}},
		{"reject not counted", func(a *agency) { a.said.refused = 0 },
			[]string{"refused, as the client says, against its rejects file: got 0, want 2"}},
		{"winner not said", func(a *agency) { a.said.count = 2 },
			[]string{"winners, as the client says, against bets.csv: got 2, want 1"}},
		{"foreign winner", func(a *agency) { a.said.winners = []string{"6"} },
			[]string{`winners' documents, as the client says, against bets.csv: got "6", want "5"`}},
	}
	for _, test := range tests {
		a := good
		test.change(&a)
		if got := a.disagreements(); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestStored(t *testing.T) {
	tests := []struct {
		line string
		want int
	}{
		{"action: apuestas_enviadas | result: success | cantidad: 150\n", 150},
		{"action: apuestas_enviadas | result: fail | cantidad: 150 | estado: #38 a reason\n", 149},
		{"action: apuestas_enviadas | result: fail | cantidad: 3 | estado: #1 a reason; #2 a reason; #3 a reason\n", 0},
		{"action: apuestas_enviadas | result: fail | cantidad: 150 | estado: shutting down\n", 0},
		{"action: apuestas_enviadas | result: fail | cantidad: 150\n", 0},
		{"action: apuestas_enviadas | result: success | cantidad: many\n", -1}, // agrees with nothing
	}
	for _, test := range tests {
		if got := storedBets(proc.Parse(test.line)); got != test.want {
			t.Errorf("%q: got %d, want %d", test.line, got, test.want)
		}
	}
}

func TestParseSaid(t *testing.T) {
	const (
		sent = "action: apuestas_enviadas | result: success | cantidad: 5\n" +
			"action: apuestas_enviadas | result: fail | cantidad: 5 | estado: #1 a; #5 b\n"
		drawn   = "action: consulta_ganadores | result: success | cant_ganadores: 3\n"
		winners = "action: ganadores | result: success | documentos: 7 8\n" +
			"action: ganadores | result: success | documentos: 9\n"
		finished = "action: loop_finished | result: success | client_id: 1 | enviadas: 10 | rechazadas: 2\n"
	)
	tests := []struct {
		name, log string
		want      said
		err       string
	}{
		{"whole", sent + drawn + winners + finished, said{8, 2, 3, []string{"7", "8", "9"}}, ""},
		{"no winners", sent + strings.Replace(drawn, "3", "0", 1) + finished, said{8, 2, 0, nil}, ""},
		{"no draw", sent + finished, said{}, "no `action: consulta_ganadores | result: success` with cant_ganadores"},
		{"not finished", sent + drawn, said{}, "no `action: loop_finished | result: success` with rechazadas"},
		{"failed", drawn + strings.Replace(finished, "success", "fail", 1), said{},
			"no `action: loop_finished | result: success` with rechazadas"},
		{"empty", "", said{}, "no `action: consulta_ganadores | result: success` with cant_ganadores"},
	}
	for _, test := range tests {
		got, err := parseSaid(test.log)
		if text := fmt.Sprint(err); err != nil && text != test.err || err == nil && test.err != "" {
			t.Errorf("%s: got error %q, want %q", test.name, text, test.err)
		}
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestGrouped(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 26936: "26,936", 1234567: "1,234,567",
		-100: "-100", -1000: "-1,000"} {
		if got := grouped(n); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
