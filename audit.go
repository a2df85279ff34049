package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
)

const (
	auditLines   = 5   // lines that are named of each reason
	auditReasons = 100 // reasons that are told apart: a file may give any number of them
)

// An audit is what mode check finds in an agency file. It reads as the client does, makes the
// client's batches, and decides on them as the server does.
type audit struct {
	batcher *batcher
	again   spanReader // for the records that would be refused
	decider decider

	batches, bets, refused int
	found                  map[string]*finding // by reason
}

// A finding is why records would be refused.
type finding struct {
	reason string
	count  int
	lines  []int // of the first of them
}

// runCheck is mode check: it prints a summary to out, and fails if anything would be refused.
func runCheck(cfg *config, out io.Writer) error {
	file, err := openRegular(cfg.dataFile)
	if err != nil {
		return fmt.Errorf("agency file: %w: set data.file", err)
	}
	defer file.Close()
	a := newAudit(file, cfg)
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("agency file: %w", err)
	}
	begins, err := newSample(&a.again, info.Size())
	if err == nil {
		err = a.read()
	}
	if err != nil {
		return fmt.Errorf("agency file: %w", err)
	}
	hint := begins.hint()
	if hint == "" && (a.found[badFirst.reason()] != nil || a.found[badLast.reason()] != nil) {
		hint = windows1252
	}
	if err := a.print(out, cfg, hint); err != nil {
		return err
	}
	switch {
	case begins.hopeless():
		return fmt.Errorf("agency file %s: %s; a client sends nothing of it", cfg.dataFile, hint)
	case a.refused > 0:
		return fmt.Errorf("agency file %s: %s records would be refused: put them right, or send the others: "+
			"a client writes these to %s", cfg.dataFile, countText(uint64(a.refused)), cfg.dataRejects)
	}
	return nil
}

// newAudit returns an audit of file that has found nothing yet.
func newAudit(file io.ReaderAt, cfg *config) *audit {
	agency := uint8(cfg.id)
	a := &audit{batcher: newBatcher(file, agency, cfg.batchMaxAmount), found: map[string]*finding{},
		again:   spanReader{file: file, agency: agency, skip: cfg.dataSkip},
		decider: decider{rule: rule{agency: agency, maxNumber: uint16(cfg.maxNumber)}}}
	a.batcher.skip = cfg.dataSkip
	return a
}

// read reads the whole file.
func (a *audit) read() error {
	var m []byte
	for {
		var s span
		var end error
		if m, s, end = a.batcher.next(m[:0]); end != nil && end != io.EOF {
			return end
		}
		var refused []refusedBet
		if s.bets > 0 {
			if _, err := a.decider.batch(m, s.bets); err != nil {
				return err
			}
			refused = a.decider.refused
			a.batches++
			a.bets += s.bets
		}
		if len(refused)+s.malformed > 0 {
			if err := a.explain(s, refused); err != nil {
				return err
			}
		}
		if end == io.EOF {
			return nil
		}
	}
}

// explain reads a batch again for the lines and reasons of what is refused of it.
func (a *audit) explain(s span, refused []refusedBet) error {
	return a.again.each(s, func(rec *record, position int, _ *Bet, malformed string) bool {
		if malformed == "" && len(refused) > 0 && refused[0].position == position {
			malformed, refused = refused[0].why.reason(), refused[1:]
		}
		if malformed != "" {
			a.add(rec.line, malformed)
		}
		return true
	})
}

// add notes a record that is refused.
func (a *audit) add(line int, reason string) {
	a.refused++
	f := a.found[reason]
	if f == nil && len(a.found) >= auditReasons {
		reason = "other reasons"
		f = a.found[reason]
	}
	if f == nil {
		f = &finding{reason: reason}
		a.found[reason] = f
	}
	f.count++
	if len(f.lines) < auditLines {
		f.lines = append(f.lines, line)
	}
}

// print prints the summary; the reasons of the most records come first.
func (a *audit) print(out io.Writer, cfg *config, hint string) error {
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "file     %s\n", appendHarmless(nil, cfg.dataFile))
	fmt.Fprintf(w, "bets     %s\n", countText(uint64(a.bets)))
	fmt.Fprintf(w, "batches  %s\n", countText(uint64(a.batches)))
	if most := cfg.loopAmount; most > 0 && most < a.batches {
		fmt.Fprintf(w, "         a client sends the first %s alone (loop.amount)\n", countText(uint64(most)))
	}
	fmt.Fprintf(w, "refused  %s\n", countText(uint64(a.refused)))
	byCount := func(f, g *finding) int {
		return cmp.Or(cmp.Compare(g.count, f.count), cmp.Compare(f.lines[0], g.lines[0]))
	}
	for _, f := range slices.SortedFunc(maps.Values(a.found), byCount) {
		fmt.Fprintf(w, "         %s: %s, line", f.reason, countText(uint64(f.count)))
		for _, line := range f.lines {
			fmt.Fprintf(w, " %d", line)
		}
		if f.count > len(f.lines) {
			fmt.Fprint(w, " …")
		}
		fmt.Fprintln(w)
	}
	if hint != "" {
		fmt.Fprintf(w, "hint     %s\n", hint)
	}
	return w.Flush()
}
