package main

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"tp0/tools/proc"
)

// said is what a client's log states.
type said struct {
	stored  int      // bets that the server's answers call stored
	refused int      // records refused, by the client itself or by the server
	count   int      // winners, as their number is given
	winners []string // their documents
}

// An agency is one row of the table: what its files hold, beside what its client said. The two
// come from different places on purpose: a bet that the client believes stored and the server
// forgot shows as a difference.
type agency struct {
	id      int
	read    int      // records in its agency file
	refused int      // records in its rejects file
	rows    int      // its rows in bets.csv
	winners []string // documents of those of its rows that have the winning number, in stored order
	said    said
	lost    bool // a server was killed: answers that it owed were lost, and RESUME told the rest
}

// readSaid reads the figures of each client from its log.
func readSaid(clients []*proc.Process) ([]said, error) {
	results := make([]said, len(clients))
	for i, c := range clients {
		text, err := os.ReadFile(c.Log)
		if err == nil {
			results[i], err = parseSaid(string(text))
		}
		if err != nil {
			return nil, c.Failed(err)
		}
	}
	return results, nil
}

// parseSaid finds a client's figures in its log. A log without the winners' number or without the
// summary is of a client that did not get to its end.
func parseSaid(log string) (said, error) {
	var s said
	ends := map[string]string{"consulta_ganadores": "cant_ganadores", "loop_finished": "rechazadas"}
	for line := range strings.Lines(log) {
		e := proc.Parse(line)
		switch {
		case e.Action == "apuestas_enviadas":
			s.stored += storedBets(e)
		case e.Result != "success":
		case e.Action == "consulta_ganadores":
			s.count = e.Number("cant_ganadores")
			delete(ends, e.Action)
		case e.Action == "ganadores":
			s.winners = append(s.winners, strings.Fields(e.Values["documentos"])...)
		case e.Action == "loop_finished":
			s.refused = e.Number("rechazadas")
			delete(ends, e.Action)
		}
	}
	if missing := slices.Sorted(maps.Keys(ends)); len(missing) > 0 {
		return said{}, fmt.Errorf("no `action: %s | result: success` with %s", missing[0], ends[missing[0]])
	}
	return s, nil
}

// storedBets returns how many bets of a batch the server's answer calls stored. `cantidad` is the
// batch, `estado` the status of the answer: "#P REASON; #P REASON…" where some were refused,
// something else where none was taken.
func storedBets(e proc.Event) int {
	switch {
	case e.Result == "success":
		return e.Number("cantidad")
	case strings.HasPrefix(e.Values["estado"], "#"):
		return e.Number("cantidad") - strings.Count(e.Values["estado"], "#")
	}
	return 0
}

// settle counts what the files hold, prints the table, and returns an error unless all figures
// agree.
func (l *lottery) settle(results []said, took time.Duration) error {
	agencies, err := l.count(results)
	if err != nil {
		return err
	}
	total, wrong := printTable(l.out, agencies), 0
	for _, a := range agencies {
		fmt.Fprintf(l.out, "winners of agency %d: %s\n", a.id, cmp.Or(strings.Join(a.winners, " "), "none"))
	}
	for _, a := range agencies {
		for _, why := range a.disagreements() {
			fmt.Fprintf(l.out, "WRONG: agency %d: %s\n", a.id, why)
			wrong++
		}
	}
	if wrong > 0 {
		return fmt.Errorf("%d figures disagree; see the logs and bets.csv in %s", wrong, l.runDir)
	}
	fmt.Fprintf(l.out, "\n%d agencies, %s bets stored in %.2f s: all numbers agree\n",
		len(agencies), grouped(total), took.Seconds())
	return nil
}

// count reads the agency files, the rejects files and bets.csv. A row in bets.csv of an agency
// that sent nothing is an error.
func (l *lottery) count(results []said) ([]agency, error) {
	agencies := make([]agency, len(results))
	for i := range agencies {
		a := &agencies[i]
		a.id, a.said, a.lost = i+1, results[i], l.killed
		var err error
		if a.read, err = countFile(l.dataFile(a.id)); err != nil {
			return nil, err
		}
		if a.refused, err = countFile(l.rejectsFile(a.id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err // there is no rejects file where nothing was refused
		}
	}
	file, err := os.Open(l.bets)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := countStored(file, agencies); err != nil {
		return nil, fmt.Errorf("%s: %w", l.bets, err)
	}
	return agencies, nil
}

// countFile returns how many records a CSV file holds, malformed ones included: each of them is
// refused. It counts with encoding/csv rather than with tp0's own reader, which is what is being
// checked. The two differ in one case: for encoding/csv a quote that is never closed takes the
// rest of the file with it.
func countFile(path string) (int, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	records := csv.NewReader(file)
	records.FieldsPerRecord = -1
	records.ReuseRecord = true
	for n := 0; ; n++ {
		_, err := records.Read()
		var malformed *csv.ParseError
		switch {
		case err == io.EOF:
			return n, nil
		case err != nil && !errors.As(err, &malformed):
			return 0, err
		}
	}
}

// countStored adds the rows of a bets file, `agency,first,last,document,birthdate,number`, to
// their agencies.
func countStored(file io.Reader, agencies []agency) error {
	rows := csv.NewReader(file)
	rows.FieldsPerRecord = 6
	rows.ReuseRecord = true
	for {
		row, err := rows.Read()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		line, _ := rows.FieldPos(0) // for the error: records are not lines where names hold line breaks
		id, err := strconv.Atoi(row[0])
		if err != nil || id < 1 || id > len(agencies) {
			return fmt.Errorf("line %d: got agency %q, want 1 to %d", line, row[0], len(agencies))
		}
		a := &agencies[id-1]
		a.rows++
		if row[5] == strconv.Itoa(winningNumber) {
			a.winners = append(a.winners, strings.Clone(row[3])) // the row is reused
		}
	}
}

// disagreements lists the figures that contradict each other; none if all is well.
func (a agency) disagreements() []string {
	var list []string
	compare := func(what string, got, want int) {
		if got != want {
			list = append(list, fmt.Sprintf("%s: got %s, want %s", what, grouped(got), grouped(want)))
		}
	}
	// Nothing lost, nothing twice: each record read has had exactly one of the two fates.
	compare("stored and refused against read", a.rows+a.refused, a.read)
	if !a.lost || a.said.stored > a.rows {
		compare("stored, as the server answered, against bets.csv", a.said.stored, a.rows)
	}
	compare("refused, as the client says, against its rejects file", a.said.refused, a.refused)
	compare("winners, as the client says, against bets.csv", a.said.count, len(a.winners))
	if got, want := strings.Join(a.said.winners, " "), strings.Join(a.winners, " "); got != want {
		list = append(list, fmt.Sprintf("winners' documents, as the client says, against bets.csv: got %q, want %q",
			got, want))
	}
	return list
}

// printTable prints a row an agency and a row of sums, and returns how many bets are stored.
func printTable(out io.Writer, agencies []agency) int {
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "agency\tread\tstored\trefused\tin bets.csv\twinners\t")
	line := func(name string, a agency, winners int) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t\n", name,
			grouped(a.read), grouped(a.said.stored), grouped(a.refused), grouped(a.rows), winners)
	}
	var sum agency
	for _, a := range agencies {
		line(strconv.Itoa(a.id), a, len(a.winners))
		sum.read += a.read
		sum.refused += a.refused
		sum.rows += a.rows
		sum.said.stored += a.said.stored
		sum.winners = append(sum.winners, a.winners...)
	}
	line("all", sum, len(sum.winners))
	t.Flush()
	fmt.Fprintln(out)
	return sum.rows
}

// grouped writes a count with a comma after each third digit from the right.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
