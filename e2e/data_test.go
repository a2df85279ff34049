package e2e

import (
	"archive/zip"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// dataSet is the course's data set, which is not part of this repository.
const dataSet = "../../shared/data/dataset.zip"

// realLots reads the data set and writes each agency's file into dir.
func realLots(t *testing.T, dir string) (lots []*lot) {
	t.Helper()
	archive, err := zip.OpenReader(dataSet)
	if err != nil {
		t.Skipf("SKIPPED: the course's data set is not there: %v", err)
	}
	defer archive.Close()
	for agency := 1; agency <= 5; agency++ {
		f, err := archive.Open(fmt.Sprintf("agency-%d.csv", agency))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		lots = append(lots, lotOf(t, dir, agency, string(text)))
	}
	return lots
}

// TestE2ERealData sends the course's files from five processes at once, with the draw.
func TestE2ERealData(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lots := realLots(t, dir)
	o := openOffice(t, "-draw.agencies=5")
	var clients []*process
	for _, l := range lots {
		clients = append(clients, o.client(t, dir, l.agency, "-draw.agencies=5"))
	}
	bets, refused := 0, 0
	for i, c := range clients {
		c.wantExit(exitDone)
		c.wantSummary(lots[i])
		c.wantWinners(lots[i].winners)
		c.waitFor("action: verify | result: success", fmt.Sprintf("apuestas: %d", len(lots[i].sizes)))
		lots[i].wantRejects(t, filepath.Join(dir, fmt.Sprintf("agency-%d.rejected.csv", i+1)))
		bets, refused = bets+len(lots[i].sizes), refused+len(lots[i].rejects)
	}
	if bets != 78697 || refused != 8 {
		t.Errorf("got %d records and %d refused, want 78697 and 8", bets, refused)
	}
	wantRows(t, o.stored(t), lots...)
	o.stop()
	if draws := o.lines("action: sorteo | result: success"); len(draws) != 1 {
		t.Errorf("got %d draws, want 1", len(draws))
	}
	out, _, status := runProgram(t, o.dir, nil, "-mode=cat")
	if status != exitDone || out != o.stored(t) {
		t.Errorf("mode cat: got status %d and %d bytes, want those of bets.csv: %d", status, len(out), len(o.stored(t)))
	}
}

// TestE2ESampleLoop sends what the course's settings send: loop.amount batches of 10 bets, and
// then, started again, nothing.
func TestE2ESampleLoop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := openOffice(t)
	makeSample(t, dir, 3, 400)
	args := []string{"-loop.amount=12", "-batch.maxAmount=10", "-loop.period=1ms"}
	for _, want := range []string{"enviadas: 120", "enviadas: 0"} {
		c := o.client(t, dir, 3, args...)
		c.wantExit(exitDone)
		c.waitFor("action: loop_finished | result: success | client_id: 3", want)
		c.wantNoFail()
	}
	if got := strings.Count(o.stored(t), "\r\n"); got != 120 {
		t.Errorf("got %d rows stored, want 120", got)
	}
	o.stop()
	if got := len(o.lines("action: apuesta_recibida | result: success", "cantidad: 10")); got != 12 {
		t.Errorf("got %d lines of batches, want 12", got)
	}
	o.wantNoFail()
}

// wantWinners wants the client to have learnt these winners.
func (p *process) wantWinners(documents []string) {
	p.t.Helper()
	line := p.waitFor("action: consulta_ganadores | result: success")
	if got := numberIn(p.t, line, "cant_ganadores"); got != len(documents) {
		p.t.Errorf("%s: got %d winners, want %d", p.Name, got, len(documents))
	}
	var got []string
	for _, line := range p.lines("action: ganadores | result: success") {
		got = append(got, strings.Fields(field(line, "documentos"))...)
	}
	wantSame(p.t, p.Name+": winners", got, documents)
}
