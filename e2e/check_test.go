package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// folderNames returns what a folder holds.
func folderNames(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(entries)
}

// TestE2ECheck checks a file of all kinds of records without a server: what check says would be
// sent and refused is what a client then sends, and what is then refused.
func TestE2ECheck(t *testing.T) {
	t.Parallel()
	dir, l := clientDir(t, 2000)
	before := folderNames(t, dir)
	out, errs, status := runProgram(t, dir, nil, "-mode=check", "-id=1", "-data.file=agency-{id}.csv")
	if after := folderNames(t, dir); after != before {
		t.Errorf("got %s in the folder, want %s", after, before)
	}
	if status != exitFailed {
		t.Errorf("got status %d, want 1", status)
	}
	refused := fmt.Sprintf("%d records would be refused", len(l.rejects))
	wantOneLine(t, "standard error", errs, "agency-1.csv", refused, "agency-1.rejected.csv")
	summary := strings.ReplaceAll(out, ",", "")
	reasons := map[string]int{}
	for _, row := range l.rejects {
		if reasons[row[1]]++; reasons[row[1]] == 1 && !strings.Contains(summary, row[1]+": ") {
			t.Errorf("%s: got nothing of it, line %s", row[1], row[0])
		}
	}
	for reason, count := range reasons {
		if !strings.Contains(summary, fmt.Sprintf("%s: %d first in lines ", reason, count)) {
			t.Errorf("got not %d of %q in\n%s", count, reason, out)
		}
	}
	o := openOffice(t)
	c := o.client(t, dir, 1)
	c.wantExit(exitDone)
	batches := len(c.lines("action: apuestas_enviadas"))
	for _, want := range []string{fmt.Sprintf("bets     %d\n", len(l.sizes)), fmt.Sprintf("batches  %d\n", batches),
		fmt.Sprintf("refused  %d\n", len(l.rejects))} {
		if !strings.Contains(summary, want) {
			t.Errorf("got\n%s\nwant %q in it", out, want)
		}
	}
	o.stop()
}

// TestE2EHints has files that are no agency files: check and client alike say in one line what they
// seem to be and what to do; the client sends nothing, and leaves no rejects file.
func TestE2EHints(t *testing.T) {
	t.Parallel()
	row := "Ana María,Núñez,30904465,1999-03-17,7574\r\n"
	wide := []byte{}
	for _, unit := range utf16.Encode([]rune(strings.Repeat(row, 30))) {
		wide = append(wide, byte(unit), byte(unit>>8))
	}
	narrow := strings.NewReplacer("í", "\xed", "ú", "\xfa", "ñ", "\xf1").Replace(row)
	o := openOffice(t)
	for _, tt := range []struct{ name, text, seems, todo string }{
		{"semicolons", strings.Repeat(strings.ReplaceAll(row, ",", ";"), 30), "semicolons", "with commas"},
		{"tabs", strings.Repeat(strings.ReplaceAll(row, ",", "\t"), 30), "tabs", "with commas"},
		{"utf16-mark", "\xff\xfe" + string(wide), "UTF-16", "iconv"},
		{"utf16", string(wide), "UTF-16 without a mark", "iconv"},
		{"windows", strings.Repeat(narrow, 30), "Windows-1252", "iconv"},
		{"quoted", strings.Repeat("\""+strings.TrimSpace(row)+"\"\n", 30), "in quotes", "take the quotes"},
		{"six", strings.Repeat("1,"+row, 30), "6 fields", "data.skip"},
		{"spreadsheet", "PK\x03\x04\x14\x00" + strings.Repeat("\x93,\n\"\x00", 99), "spreadsheet", "save it as CSV"},
		{"pdf", "%PDF-1.7\n%\xe2\xe3\n1 0 obj\n<< >>\n", "PDF", "CSV"},
	} {
		dir := t.TempDir()
		writeFile(t, dir, "agency-1.csv", tt.text)
		out, errs, status := runProgram(t, dir, nil, "-mode=check", "-id=1", "-data.file=agency-{id}.csv")
		if wantOneLine(t, tt.name, errs, "agency-1.csv", tt.seems, tt.todo); status != exitFailed {
			t.Errorf("%s: check: got status %d and %s", tt.name, status, out)
		}
		c := o.client(t, dir, 1)
		c.wantExit(exitFailed)
		wantOneLine(t, tt.name, c.errs.String(), "agency-1.csv", tt.seems, tt.todo, "nothing was sent")
		if got := folderNames(t, dir); got != "[- agency-1.csv]" {
			t.Errorf("%s: got %s in the folder, want the agency file alone", tt.name, got)
		}
	}
	for _, tt := range []struct {
		name, text, hint string
		status           int
		refused, stored  string
	}{
		{"header", "nombre,apellido,documento,nacimiento,numero\n" + row, "header", exitFailed, "1", "1"},
		{"empty", "", "no records", exitDone, "0", "0"},
	} {
		dir := t.TempDir()
		writeFile(t, dir, tt.name+".csv", tt.text)
		out, _, status := runProgram(t, dir, nil, "-mode=check", "-id=1", "-data.file="+tt.name+".csv")
		if status != tt.status || !strings.Contains(out, tt.hint) {
			t.Errorf("%s: check: got status %d and %s", tt.name, status, out)
		}
		c := o.client(t, dir, 1, "-data.file="+tt.name+".csv")
		c.wantExit(exitDone)
		c.waitFor("action: hint", tt.hint)
		c.waitFor("action: loop_finished", "rechazadas: "+tt.refused+" ")
		c.waitFor("action: verify", "apuestas: "+tt.stored+" ")
	}
	if got := o.stored(t); got != "1,"+row {
		t.Errorf("got stored %q, want %q", got, "1,"+row)
	}
	o.stop()
}

// TestE2ERejectsMax stops clients that have too many records refused; with the limit raised the
// next one goes on, and each refused record is in the rejects file once.
func TestE2ERejectsMax(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := newLot(1)
	for n := range 200 {
		l.addBet("", "Ana", "Paz", fmt.Sprint(n), "2000-01-01", "7")
		switch {
		case n%50 == 10:
			l.addMalformed("a,b\n", "2 fields where there should be 5", "a", "b")
		case n%50 == 20:
			l.addBet("document is not 1 to 10 digits", "Ana", "Paz", "x"+fmt.Sprint(n), "2000-01-01", "7")
		}
	}
	writeFile(t, dir, "agency-1.csv", l.file.String())
	o := openOffice(t)
	rejects := filepath.Join(dir, "agency-1.rejected.csv")
	for range 2 { // the second time it stops at once
		c := o.client(t, dir, 1, "-rejects.max=5", "-batch.maxAmount=10")
		c.wantExit(exitFailed)
		wantOneLine(t, "standard error", c.errs.String(), "more than 5 records", "rejects.max", "agency-1.rejected.csv")
		text, err := os.ReadFile(rejects)
		if got := strings.Count(string(text), "\r\n"); err != nil || got != 6 {
			t.Errorf("got %d rows, %v, want 6", got, err)
		}
	}
	o.client(t, dir, 1, "-rejects.max=8", "-batch.maxAmount=10").wantExit(exitDone)
	l.wantRejects(t, rejects)
	wantRows(t, o.stored(t), l)
	o.stop()
}

// TestE2ESendRejects puts a rejects file right and sends it, twice: each bet is stored once.
func TestE2ESendRejects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeFile(t, dir, "agency-1.csv", "Ana,Paz,1,2000-01-01,7\nEva,Paz,x2,2000-01-01,7\n"+
		"\"Lía, \"\"la\"\"\",Paz,3,2000-01-01,99999\nSol,Paz,4,2000-01-01\n")
	o := openOffice(t)
	o.client(t, dir, 1).wantExit(exitDone)
	rejects := filepath.Join(dir, "agency-1.rejected.csv")
	text, err := os.ReadFile(rejects)
	if err != nil {
		t.Fatal(err)
	}
	right := strings.NewReplacer("x2", "2", "99999", "999").Replace(string(text)) // the last one stays as it is
	writeFile(t, dir, "agency-1.rejected.csv", right)
	for range 2 {
		c := o.client(t, dir, 1, "-data.file=agency-1.rejected.csv", "-data.skip=2")
		c.wantExit(exitDone)
		c.waitFor("action: verify | result: success", "apuestas: 2 ")
	}
	want := "1,Ana,Paz,1,2000-01-01,7\r\n1,Eva,Paz,2,2000-01-01,7\r\n1,\"Lía, \"\"la\"\"\",Paz,3,2000-01-01,999\r\n"
	if got := o.stored(t); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	again, err := os.ReadFile(filepath.Join(dir, "agency-1.rejected.rejected.csv"))
	if want := "3,4 fields where there should be 5,Sol,Paz,4,2000-01-01\r\n"; err != nil || string(again) != want {
		t.Errorf("got rejects of the rejects %q, %v, want %q", again, err, want)
	}
	o.stop()
}
