package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Of each reason auditLines lines are named, and auditReasons reasons are told apart: a file may
// give any number of them.
const auditLines, auditReasons = 5, 100

// An audit is what mode check finds in an agency file. It reads as the client does, makes the
// client's batches, and has each bet looked at as the server does.
type audit struct {
	rule    rule
	batches int
	bets    int // in these, those that would be refused too
	refused int
	found   map[string]finding // by reason
}

// A finding is what is refused for one reason.
type finding struct {
	count int
	lines []int // of the first of them
}

// runCheck is mode check: it prints a summary to out, and fails if anything would be refused.
func runCheck(cfg *config, out io.Writer) error {
	file, err := openRegular(cfg.dataFile)
	if err != nil {
		return fmt.Errorf("agency file: %w: set data.file", err)
	}
	defer file.Close()
	agency := uint8(cfg.id)
	a := &audit{rule: rule{agency: agency, maxNumber: uint16(cfg.maxNumber)}, found: map[string]finding{}}
	begins, err := newSample(&spanReader{file: file, agency: agency, skip: cfg.dataSkip})
	if err == nil {
		err = a.read(file, cfg)
	}
	if err != nil {
		return fmt.Errorf("agency file: %w", err)
	}
	hint := begins.hint()
	if hint == "" && a.found[badFirst.reason()].count+a.found[badLast.reason()].count > 0 {
		hint = windows1252
	}
	switch err := a.print(out, cfg, hint); {
	case err != nil:
		return err
	case begins.hopeless():
		return fmt.Errorf("agency file %s: %s; a client sends nothing of it", cfg.dataFile, hint)
	case a.refused > 0:
		return fmt.Errorf("agency file %s: %s records would be refused: put them right, or send the others: "+
			"a client writes these to %s", cfg.dataFile, countText(uint64(a.refused)), cfg.dataRejects)
	}
	return nil
}

// read reads the whole file.
func (a *audit) read(file io.ReaderAt, cfg *config) error {
	b := newBatcher(file, uint8(cfg.id), cfg.batchMaxAmount, cfg.dataSkip)
	b.seen = a.look
	m := make([]byte, 0, maxMessage)
	for {
		_, s, err := b.next(m)
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		a.batches, a.bets = a.batches+1, a.bets+s.bets
	}
}

// look looks at a record: a bet, or why it is none.
func (a *audit) look(rec *record, b *Bet, malformed string) {
	if malformed == "" {
		malformed = a.rule.check(b).reason()
	}
	if malformed == "" {
		return
	}
	a.refused++
	if _, known := a.found[malformed]; !known && len(a.found) >= auditReasons {
		malformed = "other reasons"
	}
	f := a.found[malformed]
	f.count++
	if len(f.lines) < auditLines {
		f.lines = append(f.lines, rec.line)
	}
	a.found[malformed] = f
}

// print prints the summary; the reasons of the most records come first.
func (a *audit) print(out io.Writer, cfg *config, hint string) error {
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "file     %s\nbets     %s\nbatches  %s\nrefused  %s\n", appendHarmless(nil, cfg.dataFile),
		countText(uint64(a.bets)), countText(uint64(a.batches)), countText(uint64(a.refused)))
	byCount := func(r, s string) int {
		f, g := a.found[r], a.found[s]
		return cmp.Or(g.count-f.count, f.lines[0]-g.lines[0])
	}
	for _, reason := range slices.SortedFunc(maps.Keys(a.found), byCount) {
		f := a.found[reason]
		fmt.Fprintf(w, "         %s: %s, first in lines %s\n", reason, countText(uint64(f.count)),
			strings.Trim(fmt.Sprint(f.lines), "[]"))
	}
	if hint != "" {
		fmt.Fprintf(w, "hint     %s\n", hint)
	}
	return w.Flush()
}
