package e2e

import (
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A lot is an agency file and all that must come of it, made without the program's own code.
type lot struct {
	agency  int
	file    strings.Builder
	line    int        // where the next record starts
	sizes   []int      // of the BET of each well-formed record, in bytes
	taken   []int      // taken[n]: how many of the first n well-formed records are good
	rows    []string   // of bets.csv
	rejects [][]string // of the rejects file, with LF for each line break in a field
	winners []string   // documents of the good records with the number 7574
}

func newLot(agency int) *lot { return &lot{agency: agency, line: 1, taken: []int{0}} }

// addText adds the text of a record with its line break.
func (l *lot) addText(text string) {
	l.file.WriteString(text)
	l.line += strings.Count(text, "\n")
}

// addMalformed adds a record that the client refuses; fields are what the rejects file has of it.
func (l *lot) addMalformed(text, reason string, fields ...string) {
	l.rejects = append(l.rejects, append([]string{strconv.Itoa(l.line), reason}, fields...))
	l.addText(text)
}

// addBet adds a well-formed record. reason says why the server refuses it, "" if it does not.
func (l *lot) addBet(reason string, fields ...string) {
	size := 12
	var quoted []string
	for i, f := range fields {
		if i < 4 {
			size += len(f)
		}
		quoted = append(quoted, quoteField(f))
	}
	l.sizes = append(l.sizes, size)
	good := 0
	text := strings.Join(quoted, ",") + "\r\n"
	if reason == "" {
		good = 1
		l.rows = append(l.rows, strconv.Itoa(l.agency)+","+text)
		if fields[4] == "7574" {
			l.winners = append(l.winners, fields[2])
		}
	} else {
		l.rejects = append(l.rejects, append([]string{strconv.Itoa(l.line), reason}, fields...))
	}
	l.taken = append(l.taken, l.taken[len(l.taken)-1]+good)
	l.addText(text)
}

// quoteField quotes a CSV field where it must be.
func quoteField(f string) string {
	if strings.ContainsAny(f, ",\"\r\n") {
		return `"` + strings.ReplaceAll(f, `"`, `""`) + `"`
	}
	return f
}

// boundaries returns how many rows are stored after each batch, when a batch takes amount bets or
// 8,192 bytes.
func (l *lot) boundaries(amount int) map[int]bool {
	after := map[int]bool{0: true}
	bets, bytes := 0, 3
	for i, size := range l.sizes {
		if bets == amount || bytes+size > 8192 {
			after[l.taken[i]] = true
			bets, bytes = 0, 3
		}
		bets, bytes = bets+1, bytes+size
	}
	after[len(l.rows)] = true
	return after
}

// fillLot adds records of every kind; about one in 50 is malformed or refused. No two have the
// same document.
func (l *lot) fill(random *rand.Rand, records int) *lot {
	for range records {
		document := strconv.Itoa(10_000_000 + len(l.sizes)*10 + l.agency%10)
		good := []string{"Ñandú José", "Güemes", document, "1999-12-31", strconv.Itoa(random.IntN(9999))}
		with := func(i int, value string) []string {
			fields := slices.Clone(good)
			fields[i] = value
			return fields
		}
		bare := strings.Join(good, ",")
		switch random.IntN(500) {
		case 0:
			l.addBet("number is over the highest that is valid", with(4, "9999")...)
		case 1:
			l.addBet("document is not 1 to 10 digits", with(2, "12345678901")...)
		case 2:
			l.addBet("birthdate is not a real date YYYY-MM-DD", with(3, "2001-02-29")...)
		case 3:
			l.addBet("first name is empty", with(0, "")...)
		case 4:
			l.addBet("last name has a control character", with(1, "two\nlines")...)
		case 5:
			l.addMalformed("a,b,c,d\n", "4 fields where there should be 5", "a", "b", "c", "d")
		case 6:
			l.addMalformed(bare+",more\r\n", "6 fields where there should be 5", append(slices.Clone(good), "more")...)
		case 7:
			l.addMalformed("x,y,1,2000-01-01,12a\n", "number is not 1 to 5 digits", "x", "y", "1", "2000-01-01", "12a")
		case 8:
			l.addMalformed("x,y,1,2000-01-01,70000\n", "number is over 65535", "x", "y", "1", "2000-01-01", "70000")
		case 9:
			l.addText("\r\n\n")
			l.addBet("", good...)
		case 10:
			l.addBet("", with(1, `de "la" Torre, hijo`)...)
		case 11:
			l.addBet("", with(0, strings.Repeat("x", 500+random.IntN(3000)))...)
		default:
			l.addBet("", good...)
		}
	}
	return l
}

// makeLots writes an agency file for each of the agencies 1 to n into dir.
func makeLots(t *testing.T, dir string, n, records int, seed uint64) []*lot {
	t.Helper()
	var lots []*lot
	for agency := 1; agency <= n; agency++ {
		l := newLot(agency).fill(rand.New(rand.NewPCG(seed, uint64(agency))), records)
		lots = append(lots, l)
		writeFile(t, dir, fmt.Sprintf("agency-%d.csv", agency), l.file.String())
	}
	return lots
}

// lotOf returns the lot of an agency file that holds no malformed record and nothing wrong but
// numbers that are too high, by encoding/csv, and writes the file into dir.
func lotOf(t *testing.T, dir string, agency int, text string) *lot {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	l := newLot(agency)
	for _, row := range rows {
		reason := ""
		if number, err := strconv.Atoi(row[4]); err != nil || number > 9998 {
			reason = "number is over the highest that is valid"
		}
		l.addBet(reason, row...)
	}
	writeFile(t, dir, fmt.Sprintf("agency-%d.csv", agency), text)
	return l
}

// wantRows wants bets.csv to hold rows, each agency's in their order, and nothing else. The order
// of agencies among each other is free.
func wantRows(t *testing.T, stored string, lots ...*lot) {
	t.Helper()
	byAgency := map[string][]string{}
	for row := range strings.SplitAfterSeq(stored, "\r\n") {
		if row != "" {
			agency, _, _ := strings.Cut(row, ",")
			byAgency[agency] = append(byAgency[agency], row)
		}
	}
	for _, l := range lots {
		agency := strconv.Itoa(l.agency)
		wantSame(t, "bets.csv, agency "+agency, byAgency[agency], l.rows)
		delete(byAgency, agency)
	}
	for agency, rows := range byAgency {
		t.Errorf("bets.csv: got %d rows of agency %q, want none", len(rows), agency)
	}
}

// wantSame compares two lists and shows the first difference.
func wantSame(t *testing.T, what string, got, want []string) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Errorf("%s: got %q as number %d, want %q", what, got[i], i+1, want[i])
			return
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: got %d, want %d", what, len(got), len(want))
	}
}

// wantRejects wants the rejects file to hold what the lot says, in order, and not to exist where
// that is nothing.
func (l *lot) wantRejects(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		if len(l.rejects) > 0 || !os.IsNotExist(err) {
			t.Errorf("agency %d: got %v, want %d rejects", l.agency, err, len(l.rejects))
		}
		return
	}
	defer f.Close()
	if len(l.rejects) == 0 {
		t.Errorf("%s: got a file, want none", path)
	}
	r := csv.NewReader(f)
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	join := func(rows [][]string) (lines []string) {
		for _, row := range rows {
			lines = append(lines, strings.Join(row, "|"))
		}
		return lines
	}
	wantSame(t, path, join(rows), join(l.rejects))
}

// TestE2EFiveClients sends five files with records of every kind, in each of several ways.
func TestE2EFiveClients(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-batch.window=1"}, {}, {"-batch.maxAmount=7", "-batch.window=1024"}, {"-batch.maxAmount=65535"},
		{"-resume=false", "-batch.maxAmount=60"}, {"-retry.timeout=0s", "-log.level=debug"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			dir := t.TempDir()
			lots := makeLots(t, dir, 5, 3000, 1)
			o := openOffice(t)
			var clients []*process
			for _, l := range lots {
				clients = append(clients, o.client(t, dir, l.agency, args...))
			}
			for i, c := range clients {
				c.wantExit(exitDone)
				c.wantSummary(lots[i])
				lots[i].wantRejects(t, filepath.Join(dir, fmt.Sprintf("agency-%d.rejected.csv", i+1)))
			}
			o.stop()
			wantRows(t, o.stored(t), lots...)
		})
	}
}

// wantSummary compares a client's last line, and its line for each refused record, with the lot.
func (p *process) wantSummary(l *lot) {
	p.t.Helper()
	line := p.waitFor("action: loop_finished | result: success", "client_id: "+strconv.Itoa(l.agency))
	if got := numberIn(p.t, line, "enviadas") + numberIn(p.t, line, "reanudadas"); got != len(l.sizes) {
		p.t.Errorf("%s: got %q, want %d bets", p.Name, line, len(l.sizes))
	}
	var got, want []string
	for _, line := range p.lines("action: apuesta_rechazada | result: fail") {
		got = append(got, field(line, "linea")+" "+field(line, "motivo"))
	}
	for _, row := range l.rejects {
		want = append(want, row[0]+" "+row[1])
	}
	wantSame(p.t, p.Name+": apuesta_rechazada", got, want)
	if n := numberIn(p.t, line, "rechazadas"); n != len(want) {
		p.t.Errorf("%s: got rechazadas %d, want %d", p.Name, n, len(want))
	}
}

// TestE2EFileEnds has agency files with odd ends: the records that stand last are not lost.
func TestE2EFileEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		make func(l *lot)
	}{
		{"empty", func(*lot) {}},
		{"blank lines only", func(l *lot) { l.addText("\r\n\n\n") }},
		{"malformed only", func(l *lot) { l.addMalformed("a,b\n", "2 fields where there should be 5", "a", "b") }},
		{"malformed last", func(l *lot) {
			l.addBet("", "Ana", "Gómez", "1", "2000-01-01", "1")
			l.addMalformed("a,b", "2 fields where there should be 5", "a", "b")
		}},
		{"all refused", func(l *lot) {
			for range 400 {
				l.addBet("document is not 1 to 10 digits", "A", "B", "x", "2000-01-01", "1")
			}
		}},
		{"byte order mark", func(l *lot) {
			l.file.WriteString("\ufeff")
			l.addBet("", "Ana", "Gómez", "1", "2000-01-01", "7574")
		}},
		{"largest bet", func(l *lot) {
			l.addBet("", strings.Repeat("a", 8189-12-1-1-10), "b", "1", "2000-01-01", "0")
			long := strings.Repeat("a", 8190-12-1-1-10)
			l.addMalformed(long+",b,1,2000-01-01,0\n",
				"longer than a batch holds: 8190 bytes as a BET, and 8189 are the limit", long, "b", "1", "2000-01-01",
				"0")
			l.addBet("", "Ana", "Gómez", "2", "2000-01-01", "9998")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLot(1)
			tt.make(l)
			o, dir := openOffice(t), t.TempDir()
			writeFile(t, dir, "agency-1.csv", l.file.String())
			for range 2 { // the second time there is nothing to do
				c := o.client(t, dir, 1)
				c.wantExit(exitDone)
			}
			l.wantRejects(t, filepath.Join(dir, "agency-1.rejected.csv"))
			wantRows(t, o.stored(t), l)
			o.stop()
		})
	}
}
