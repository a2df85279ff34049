package main

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"tp0/tools/proc"
)

// maxAgencies is how many agencies there can be.
const maxAgencies = 255

// maxNumber is the highest number that is valid where bets.maxNumber is not set.
const maxNumber = 9998

// A ledger is what a bets file holds, whichever way the agencies' rows are mixed in it: the rows
// of each agency, and the CRC of those in their order.
type ledger struct {
	rows  [maxAgencies + 1]int
	crc   [maxAgencies + 1]uint32
	bytes int64
}

// add adds a row, with its line break.
func (l *ledger) add(agency int, row []byte) {
	l.rows[agency]++
	l.crc[agency] = crc32.Update(l.crc[agency], castagnoli, row)
	l.bytes += int64(len(row))
}

// total returns the rows of all agencies.
func (l *ledger) total() (n int) {
	for _, rows := range l.rows {
		n += rows
	}
	return n
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A dataset is agency files, agency 1 first, and what must come of them.
type dataset struct {
	files    []string
	bets     int    // records in the files
	want     ledger // of the bets file when all is sent
	expected string // a file with the rows that a bets file gets, agency after agency
}

// makeSamples makes sample files with rows bets in all, each agency the same number or one more.
func (b *bench) makeSamples(ctx context.Context, name string, rows, agencies int) (*dataset, error) {
	d := &dataset{}
	for i := range agencies {
		bets := rows / agencies
		if i < rows%agencies {
			bets++
		}
		file := filepath.Join(b.dir, fmt.Sprintf("%s-agency-%d.csv", name, i+1))
		if err := proc.Sample(ctx, b.program, file, i+1, bets, "-config="+b.config); err != nil {
			return nil, err
		}
		d.files = append(d.files, file)
	}
	return d, d.expect(filepath.Join(b.dir, name+"-expected.csv"))
}

// unpack unpacks the course's data set; nil if there is none here.
func (b *bench) unpack() (*dataset, error) {
	archive, err := zip.OpenReader(b.dataset)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.dataset, err)
	}
	defer archive.Close()
	d := &dataset{}
	for id := 1; id <= len(archive.File); id++ {
		name := fmt.Sprintf("agency-%d.csv", id)
		for _, f := range archive.File {
			if path.Base(f.Name) != name {
				continue
			}
			file := filepath.Join(b.dir, "real-"+name)
			if err := extract(f, file); err != nil {
				return nil, fmt.Errorf("%s: %w", b.dataset, err)
			}
			d.files = append(d.files, file)
		}
	}
	return d, d.expect(filepath.Join(b.dir, "real-expected.csv"))
}

// extract copies a file of an archive.
func extract(f *zip.File, to string) error {
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// expect works out what a bets file gets, and leaves it in a file.
func (d *dataset) expect(to string) error {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	d.expected = to
	w := bufio.NewWriterSize(out, 64<<10)
	for i, file := range d.files {
		var row []byte
		err := eachLine(file, func(line []byte) error {
			d.bets++
			var good bool
			if row, good = rowOf(row[:0], i+1, line); !good {
				return nil
			}
			d.want.add(i+1, row)
			_, err := w.Write(row)
			return err
		})
		if err != nil {
			return err
		}
	}
	return errors.Join(w.Flush(), out.Sync())
}

// rowOf appends the row that a bets file gets for a line of an agency file. It knows only what
// samples and the course's files have: no quotes, and nothing wrong but numbers that are too
// high.
func rowOf(dst []byte, agency int, line []byte) (row []byte, good bool) {
	line = bytes.TrimRight(line, "\r\n")
	number, err := strconv.Atoi(string(line[bytes.LastIndexByte(line, ',')+1:]))
	if err != nil || number > maxNumber {
		return dst, false
	}
	dst = append(strconv.AppendInt(dst, int64(agency), 10), ',')
	return append(append(dst, line...), "\r\n"...), true
}

// check compares a bets file with what must be in it.
func (d *dataset) check(bets string) error {
	got := new(ledger)
	err := eachLine(bets, func(row []byte) error {
		agency, err := strconv.Atoi(string(row[:max(0, bytes.IndexByte(row, ','))]))
		if err != nil || agency < 1 || agency > maxAgencies {
			return fmt.Errorf("a row of no agency: %q", row)
		}
		got.add(agency, row)
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", bets, err)
	}
	if *got != d.want {
		return fmt.Errorf("%s is not complete: got %d rows and %d bytes, want %d and %d, each agency's in order",
			bets, got.total(), got.bytes, d.want.total(), d.want.bytes)
	}
	return nil
}

// eachLine calls visit for each line of a file, with its line break; the line is valid until
// visit returns.
func eachLine(file string, visit func(line []byte) error) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	lines := bufio.NewReaderSize(in, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			if err := visit(line); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// remove removes the files.
func (d *dataset) remove() (err error) {
	for _, file := range append(d.files, d.expected) {
		err = errors.Join(err, os.Remove(file))
	}
	return err
}
