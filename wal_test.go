package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
)

// openTestWAL opens a log, and returns the payloads that it replays.
func openTestWAL(d disk, relaxed bool, after uint64) (w *wal, got []string, report walReport, err error) {
	w, report, err = openWAL(d, testPath, relaxed, testSegment, after, func(_ uint32, payload []byte) error {
		got = append(got, string(payload))
		return nil
	})
	return w, got, report, err
}

// appendTest appends a record.
func appendTest(w *wal, payload string) error {
	record := append(make([]byte, walRecordHead), payload...)
	if err := w.makeRoom(len(record)); err != nil {
		return err
	}
	at, n := len(record)-len(payload), len(payload)/2
	return w.append(record, at, n, crc32.Checksum(record[at:at+n], castagnoli))
}

// fillWAL makes a log of those payloads on a new disk.
func fillWAL(t *testing.T, relaxed bool, payloads ...string) (*simDisk, *wal) {
	t.Helper()
	d := newSimDisk()
	w, _, _, err := openTestWAL(d, relaxed, 0)
	for _, payload := range payloads {
		if err == nil {
			err = appendTest(w, payload)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return d, w
}

// TestWALFormat pins the bytes of version 3.
func TestWALFormat(t *testing.T) {
	d, w := fillWAL(t, false, "first", strings.Repeat("2", 5000), "third")
	data := d.read(testPath + ".wal.00")
	epoch := binary.LittleEndian.AppendUint64(nil, w.current.epoch)
	head := "7470302077616c0a" + "03000000" + "00000000" + hex.EncodeToString(epoch) + "0100000000000000" + "00800000"
	if got := hex.EncodeToString(data[:walHead-4]); got != head {
		t.Errorf("header: got %s, want %s", got, head)
	}
	got, want := binary.LittleEndian.Uint32(data[walHead-4:]), crc32.Checksum(data[:walHead-4], castagnoli)
	if got != want {
		t.Errorf("CRC of the header: got %08x, want %08x", got, want)
	}
	for _, rec := range []struct {
		at, length int
		sequence   byte
	}{{4096, 5, 1}, {8192, 5000, 2}, {16384, 5, 3}} {
		got := data[rec.at+4 : rec.at+24]
		want := binary.LittleEndian.AppendUint32(nil, uint32(rec.length))
		want = append(append(want, epoch...), rec.sequence, 0, 0, 0, 0, 0, 0, 0)
		if !bytes.Equal(got, want) {
			t.Errorf("record %d: got the head %x, want %x", rec.sequence, got, want)
		}
		sum := crc32.Checksum(data[rec.at+4:rec.at+24+rec.length], castagnoli)
		if got := binary.LittleEndian.Uint32(data[rec.at:]); got != sum {
			t.Errorf("record %d: got CRC %08x, want %08x", rec.sequence, got, sum)
		}
	}
	if len(data) != testSegment {
		t.Errorf("segment: got %d bytes, want %d", len(data), testSegment)
	}
}

// TestWALCommitCost counts what a commit asks of the disk: one write and one datasync.
func TestWALCommitCost(t *testing.T) {
	d, w := fillWAL(t, false, "first")
	before := d.calls
	if err := appendTest(w, "second"); err != nil {
		t.Fatal(err)
	}
	if got := d.calls - before; got != 2 {
		t.Errorf("calls of a commit: got %d, want 2", got)
	}
}

// TestWALReplay checks what a log gives back after a clean end, from any sequence number on.
func TestWALReplay(t *testing.T) {
	var payloads []string
	for i := range 30 {
		payloads = append(payloads, fmt.Sprintf("payload %d %s", i+1, strings.Repeat("x", i*i*10)))
	}
	d, _ := fillWAL(t, false, payloads...)
	for after := range len(payloads) + 1 {
		w, got, report, err := openTestWAL(d.kill(), false, uint64(after))
		if err != nil {
			t.Fatalf("after %d: %v", after, err)
		}
		if want := payloads[after:]; strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("after %d: got %d records, want %d", after, len(got), len(want))
		}
		if report.replayed != len(got) || report.cut != 0 || w.next != uint64(len(payloads)+1) {
			t.Errorf("after %d: got report %+v and next %d", after, report, w.next)
		}
	}
}

// TestWALDamage makes damage of each kind in a log of 10 records in two segments, of which the
// first 2 are in a checkpoint.
func TestWALDamage(t *testing.T) {
	const first, second = testPath + ".wal.00", testPath + ".wal.01" // records 1 to 7 and 8 to 10, a page each
	flip := func(name string, at int) func(*simDisk) {
		return func(d *simDisk) { d.dir[name].cache[at] ^= 1 }
	}
	cut := func(name string, size int) func(*simDisk) {
		return func(d *simDisk) { d.dir[name].cache = d.dir[name].cache[:size] }
	}
	gone := func(name string) func(*simDisk) {
		return func(d *simDisk) { delete(d.dir, name) }
	}
	rows := []struct {
		name     string
		corrupt  func(d *simDisk)
		replayed int // of 8
		offset   int64
		file     string // the error names it; empty: it opens
	}{
		{"nothing", func(*simDisk) {}, 8, 0, ""},
		{"last record", flip(second, 3*walPage+24), 7, 0, ""},
		{"last but one", flip(second, 2*walPage+24), 0, 2 * walPage, second},
		{"length of the last but one", flip(second, 2*walPage+4), 0, 2 * walPage, second},
		{"epoch of the last but one", flip(second, 2*walPage+8), 0, 2 * walPage, second},
		{"sequence number of the last but one", flip(second, 2*walPage+16), 0, 2 * walPage, second},
		{"record in the middle", flip(first, 5*walPage+24), 0, 5 * walPage, first},
		{"record in the checkpoint", flip(first, walPage+24), 0, walPage, first},
		{"header of the first", flip(first, 20), 0, 0, first},
		{"magic of the second", flip(second, 0), 0, 0, second},
		{"first segment gone", gone(first), 0, walPage, second},
		{"second segment gone", gone(second), 5, 0, ""}, // the bets file shows it: TestStoreDamage
		{"first segment cut", cut(first, 5*walPage), 0, 5 * walPage, first},
		{"second segment cut in its zeros", cut(second, testSegment-1), 0, testSegment - 1, second},
		{"header cut", cut(second, 30), 5, 0, ""},
		{"bytes behind the second", func(d *simDisk) {
			d.dir[second].cache = append(d.dir[second].cache, "junk"...)
		}, 8, 0, ""},
		{"bytes of the padding", flip(second, 2*walPage-1), 8, 0, ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			d, _ := fillWAL(t, false, "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
			row.corrupt(d)
			_, got, _, err := openTestWAL(d, false, 2)
			if row.file == "" {
				if err != nil || len(got) != row.replayed {
					t.Errorf("got %d records and %v, want %d", len(got), err, row.replayed)
				}
				return
			}
			var corrupt *corruptError
			if !errors.As(err, &corrupt) {
				t.Fatalf("got %v, want a corruptError", err)
			}
			if corrupt.file != row.file || corrupt.offset != row.offset {
				t.Errorf("got %s at %d, want %s at %d", corrupt.file, corrupt.offset, row.file, row.offset)
			}
		})
	}
}

// TestWALNewerVersion checks that a newer log is refused with a clear line.
func TestWALNewerVersion(t *testing.T) {
	d, w := fillWAL(t, false, "1")
	head := w.current.appendHeader(nil)
	binary.LittleEndian.PutUint32(head[8:], walVersion+1)
	binary.LittleEndian.PutUint32(head[walHead-4:], crc32.Checksum(head[:walHead-4], castagnoli))
	copy(d.dir[testPath+".wal.00"].cache, head)
	_, _, _, err := openTestWAL(d, false, 0)
	if err == nil || !strings.Contains(err.Error(), "bets.csv.wal.00: version 4 of the log") {
		t.Errorf("got %v, want an error about version 4 of bets.csv.wal.00", err)
	}
}

// TestWALFakeRecord puts a whole record into the payload of another, on a page of its own, as a
// client could with a source's name, and uses the segment again.
func TestWALFakeRecord(t *testing.T) {
	fake := make([]byte, walRecordHead+16)
	le := binary.LittleEndian
	le.PutUint32(fake[4:], 16)
	le.PutUint64(fake[8:], 0x4141414141414141)
	le.PutUint64(fake[16:], 0x4141414141414141)
	le.PutUint32(fake, crc32.Checksum(fake[4:], castagnoli))
	payload := strings.Repeat("r", walPage-walRecordHead) + string(fake)
	for _, relaxed := range []bool{false, true} {
		for _, void := range []bool{false, true} {
			d, w := fillWAL(t, relaxed, payload, payload, payload)
			w.release(3)
			if err := w.begin(w.slots[0]); err != nil { // the segment is used again
				t.Fatal(err)
			}
			if !void {
				if err := appendTest(w, "4"); err != nil {
					t.Fatal(err)
				}
			} else if _, err := w.slots[0].file.WriteAt(make([]byte, walHead), 0); err != nil {
				t.Fatal(err)
			}
			w, got, report, err := openTestWAL(d.kill(), relaxed, 3)
			if err != nil || report.cut != 0 {
				t.Fatalf("relaxed %v, void %v: got %+v and %v, want no damage", relaxed, void, report, err)
			}
			if want := uint64(len(got)) + 4; w.next != want {
				t.Errorf("relaxed %v, void %v: got next %d, want %d", relaxed, void, w.next, want)
			}
		}
	}
}

// TestWALRelaxedGap checks that only a relaxed log drops records behind a gap, only within one
// segment, and never uses their numbers again.
func TestWALRelaxedGap(t *testing.T) {
	payloads := []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"}
	damage := func(relaxed bool, segment string, page int) *simDisk {
		d, _ := fillWAL(t, relaxed, payloads...)
		d.dir[testPath+segment].cache[page*walPage+24] ^= 1
		return d
	}
	w, got, report, err := openTestWAL(damage(true, ".wal.01", 2), true, 0)
	if err != nil || len(got) != 8 || report.cut != 1 || !report.relaxed || w.next != 11 {
		t.Errorf("gap at 9 of a relaxed log: got %d records, %+v, %v", len(got), report, err)
	}
	for _, relaxed := range []bool{false, true} {
		if _, _, _, err := openTestWAL(damage(relaxed, ".wal.00", 6), relaxed, 0); err == nil {
			t.Errorf("relaxed %v: a gap at 6 with records in the next segment: got no error", relaxed)
		}
	}
	if _, _, _, err := openTestWAL(damage(false, ".wal.01", 2), true, 0); err == nil {
		t.Error("a gap in a log that was not relaxed when it was written: got no error")
	}
}

// TestWALHalfBegun has a segment that cannot be begun, though its header may be in its file:
// the log goes on in one that is begun after it. Otherwise the end of a relaxed log would be
// taken for damage.
func TestWALHalfBegun(t *testing.T) {
	for _, free := range []bool{false, true} { // a checkpoint gives back a segment with a lower number meanwhile
		sim := newSimDisk()
		d := &faultDisk{disk: sim}
		w, _, _, err := openTestWAL(d, true, 0)
		for i := range 13 { // the first segment takes 7
			if err == nil {
				err = appendTest(w, fmt.Sprint("record ", i+1))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		d.setFault(func(c diskCall) *diskFault {
			if c.kind == "write" && c.name == "bets.csv.wal.02" && w.current == nil {
				return &diskFault{syscall.ENOSPC, walHead}
			}
			return nil
		})
		for range 3 {
			if err := appendTest(w, strings.Repeat("x", walPage)); err == nil || isFatal(err) {
				t.Fatalf("got %v, want no room", err)
			}
		}
		d.setFault(nil)
		if free {
			w.release(7)
		}
		for i := range 3 {
			if err := appendTest(w, fmt.Sprint("record ", 14+i)); err != nil {
				t.Fatal(err)
			}
		}
		after := sim.kill()
		after.dir[w.current.name].cache[walPage+30] ^= 1 // record 14 did not get to the disk, 15 and 16 did
		_, got, report, err := openTestWAL(after, true, 7)
		if err != nil || len(got) != 6 || report.cut != 2 {
			t.Errorf("given back %v (%s): got %d records, %d cut, %v, "+
				"want 6 records, 2 cut", free, w.current.name, len(got), report.cut, err)
		}
	}
}

// TestWALFull fills every segment, and frees them.
func TestWALFull(t *testing.T) {
	d, w := fillWAL(t, false)
	const perSegment = testSegment/walPage - 1
	for i := range perSegment * walSlots {
		if err := appendTest(w, "x"); err != nil {
			t.Fatalf("record %d: %v", i+1, err)
		}
	}
	if err := appendTest(w, "x"); !errors.Is(err, errLogFull) {
		t.Fatalf("with every segment full: got %v, want errLogFull", err)
	}
	if got := w.waiting(); got != walSlots-1 {
		t.Errorf("waiting: got %d, want %d", got, walSlots-1)
	}
	w.release(perSegment)
	if got := w.waiting(); got != walSlots-2 {
		t.Errorf("waiting after a release: got %d, want %d", got, walSlots-2)
	}
	if err := appendTest(w, "new"); err != nil {
		t.Fatal(err)
	}
	_, got, _, err := openTestWAL(d.kill(), false, perSegment)
	if want := perSegment*(walSlots-1) + 1; err != nil || len(got) != want {
		t.Errorf("replay: got %d records and %v, want %d", len(got), err, want)
	}
	if len(d.dir) != walSlots {
		t.Errorf("files: got %d, want %d", len(d.dir), walSlots)
	}
}

// TestWALTakeBack checks that a record whose write failed is never replayed, however much of it
// is in the file.
func TestWALTakeBack(t *testing.T) {
	for _, short := range []int{0, 1, 23, 24, 30, 1 << 20} {
		d := &faultDisk{disk: newSimDisk()}
		w, _, _, err := openTestWAL(d, false, 0)
		if err == nil {
			err = appendTest(w, "first")
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // as often as there is no room, even for the zeros
			d.setFault(failWrite("", 1, 1, short))
			if err := appendTest(w, strings.Repeat("second", 1000)); !errors.Is(err, syscall.ENOSPC) || isFatal(err) {
				t.Fatalf("short %d: got %v, want ENOSPC that is not fatal", short, err)
			}
			d.setFault(failWrite("", 1, 1, short))
			if err := w.takeBack(); !errors.Is(err, syscall.ENOSPC) || isFatal(err) {
				t.Fatalf("short %d: taking back: got %v, want ENOSPC that is not fatal", short, err)
			}
			if err := w.takeBack(); err != nil {
				t.Fatal(err)
			}
		}
		if rest := d.disk.(*simDisk).read(testPath + ".wal.00")[w.current.end:]; len(bytes.Trim(rest, "\x00")) > 0 {
			t.Errorf("short %d: bytes of what was taken back are there still", short)
		}
		if _, got, _, _ := openTestWAL(d.disk.(*simDisk).kill(), false, 0); len(got) != 1 {
			t.Errorf("short %d: got %q, want the first record alone", short, got)
		}
		if err := appendTest(w, "third"); err != nil {
			t.Fatal(err)
		}
		if _, got, _, _ := openTestWAL(d.disk.(*simDisk).kill(), false, 0); strings.Join(got, " ") != "first third" {
			t.Errorf("short %d: got %q, want first and third", short, got)
		}
	}
}

// FuzzWAL opens a segment of any bytes: whatever they are, it ends, and what it replays is in
// order.
func FuzzWAL(f *testing.F) {
	d := newSimDisk()
	w, _, _, _ := openTestWAL(d, false, 0)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		appendTest(w, strings.Repeat("p", rng.IntN(5000)))
	}
	f.Add(d.read(testPath+".wal.00"), uint16(0))
	f.Add([]byte(walMagic), uint16(3))
	f.Fuzz(func(t *testing.T, data []byte, after uint16) {
		d := newSimDisk()
		d.put(testPath+".wal.00", data[:min(len(data), 4*testSegment)])
		w, got, report, err := openTestWAL(d, false, uint64(after))
		if err == nil && (w.next != uint64(after)+1+uint64(len(got)) || report.replayed != len(got)) {
			t.Errorf("got %d records, next %d and %+v after %d", len(got), w.next, report, after)
		}
	})
}
