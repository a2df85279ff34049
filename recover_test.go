package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// aloneOptions are those with which mode replicate recovers a store.
func aloneOptions() storeOptions {
	options := smallOptions()
	options.alone = true
	return options
}

// smallOptions are those of a store whose segments hold two records of a page.
func smallOptions() storeOptions { return storeOptions{path: testPath, segment: 3 * walPage} }

// smallStore makes a store with two batches in a checkpoint and three in the log, killed; the
// oracle holds it to all of them.
func smallStore(t *testing.T) (*simDisk, *oracle) {
	t.Helper()
	d, o := newSimDisk(), newOracle(2)
	var at Resume
	for _, batches := range []int{2, 3} {
		s := openTest(t, d, smallOptions())
		ses, _ := mustHello(t, s, sourceOf(1))
		for range batches {
			g := mustSubmit(t, s, ses, 1)
			<-g.done
		}
		at = ses.at
		if batches == 3 {
			d.powerOff()
		}
		s.close()
	}
	o.sources[1] = oracleSource{at.Records, at.Records}
	return d.kill(), o
}

// cutBack cuts the bets file to what the snapshot vouches for, as a power cut may.
func cutBack(t *testing.T, d *simDisk) {
	t.Helper()
	s, _, err := parseState(d.read(testPath + ".state"))
	if err != nil {
		t.Fatal(err)
	}
	d.put(testPath, d.read(testPath)[:s.length])
}

// startDamaged starts a store whose file was changed. It must have all that the oracle knows,
// or refuse and name a file of the store.
func startDamaged(d *simDisk, o *oracle) (started bool, err error) {
	before := d.read(testPath)
	s, err := openStore(context.Background(), d, smallOptions(), quiet)
	if err != nil {
		if !strings.Contains(err.Error(), testPath) || strings.Contains(err.Error(), "\n") {
			return false, fmt.Errorf("got the error %q, want one line that names a file", err)
		}
		if after := d.read(testPath); !bytes.HasPrefix(after, before[:min(len(before), len(after))]) {
			return false, errors.New("a start that refuses has changed rows of the bets file")
		}
		return false, nil
	}
	err = o.copy().verify(s, d.read(testPath))
	d.powerOff()
	s.close()
	return true, err
}

// damageEachByte damages a store at each byte of some of its files, with its bets file cut back to
// the checkpoint and without. Every start has all, or is refused; lost says where it may have less:
// nothing but the rows that were cut off tells there that the last record was answered.
func damageEachByte(t *testing.T, names []string, damage func(f *simInode, i int), lost func(name string, i int) bool) {
	t.Helper()
	d, o := smallStore(t)
	for _, name := range names {
		for _, cut := range []bool{false, true} {
			started, refused, fewer := 0, 0, 0
			data := d.read(testPath + name)
			for i := range data {
				if skipZeros(data, i) {
					continue
				}
				k := d.kill()
				if cut {
					cutBack(t, k)
				}
				damage(k.dir[testPath+name], i)
				switch ok, err := startDamaged(k, o); {
				case err != nil && cut && lost(name, i):
					fewer++
				case err != nil:
					t.Fatalf("%s, byte %d, bets file cut back %v: %v", name, i, cut, err)
				case ok:
					started++
				default:
					refused++
				}
			}
			t.Logf("%s, bets file cut back %v: %d starts with all, %d refused, %d without the "+
				"last record", name, cut, started, refused, fewer)
		}
	}
}

// TestStoreFlips flips a bit of every byte of the log and of the snapshot.
func TestStoreFlips(t *testing.T) {
	t.Parallel()
	damageEachByte(t, []string{".wal.00", ".wal.01", ".state"},
		func(f *simInode, i int) { f.cache[i] ^= 1 << (i % 8) }, inLastRecord)
}

// inLastRecord tells whether byte i of a file of smallStore is in the last record: nothing but
// the bets file tells that it was answered.
func inLastRecord(name string, i int) bool { return name == ".wal.01" && i >= walPage }

// skipZeros tells whether byte i lies among zeros that are like those around them: of those
// every 64th will do, but in the torture.
func skipZeros(data []byte, i int) bool {
	if i%64 == 0 || os.Getenv("TORTURE") != "" {
		return false
	}
	for _, b := range data[max(0, i-16):min(len(data), i+16)] {
		if b != 0 {
			return false
		}
	}
	return true
}

// TestStoreTruncations cuts each file at every byte.
func TestStoreTruncations(t *testing.T) {
	t.Parallel()
	damageEachByte(t, []string{".wal.00", ".wal.01", ".state", ""},
		func(f *simInode, i int) { f.cache = f.cache[:min(i, len(f.cache))] },
		// such a file is what a crash leaves of one that was being made
		func(name string, i int) bool { return name == ".wal.01" && i < walHead })
}

// TestStoreDamage removes and changes whole files: the error says what is wrong with which.
func TestStoreDamage(t *testing.T) {
	rows := []struct {
		name   string
		change func(d *simDisk)
		want   string // in the error; empty: it starts with all
	}{
		{"nothing", func(*simDisk) {}, ""},
		{"half a snapshot that was " +
			"being written", func(d *simDisk) { d.put(testPath+".state.new", []byte("tp0st")) }, ""},
		{"bets file gone", func(d *simDisk) { delete(d.dir, testPath) }, "bets.csv is gone, and bets.csv.state " +
			"knows of"},
		{"bets file longer", func(d *simDisk) {
			d.put(testPath,
				append(d.read(testPath), "1,a,b,1,1999-01-01,1\r\n"...))
		},
			"goes on for 22 bytes behind the last intact record"},
		{"bets file empty", func(d *simDisk) { d.put(testPath, nil) }, "bets.csv has 0 bytes, and bets.csv.state says"},
		{"snapshot gone", func(d *simDisk) { delete(d.dir, testPath+".state") }, "bets.csv.state is gone"},
		{"log gone", func(d *simDisk) { delete(d.dir, testPath+".wal.00"); delete(d.dir, testPath+".wal.01") },
			"bets.csv.wal.00: damaged at byte 0"},
		{"first segment gone", func(d *simDisk) { delete(d.dir, testPath+".wal.00") },
			"bets.csv.wal.01: damaged at byte"},
		{"last segment gone", func(d *simDisk) { delete(d.dir, testPath+".wal.01") },
			"bets.csv.wal.00: damaged at byte"},
		{"bets file cut back", func(d *simDisk) { d.put(testPath, d.read(testPath)[:len(d.read(testPath))-30]) }, ""},
		{"snapshot empty", func(d *simDisk) { d.put(testPath+".state", nil) }, "bets.csv.state: damaged"},
		{"snapshot of another store", func(d *simDisk) {
			s, _, _ := parseState(d.read(testPath + ".state"))
			s.crc++
			d.put(testPath+".state", appendState(nil, &s))
		}, "log and bets.csv.state are not of one store"},
		{"newer snapshot", func(d *simDisk) {
			data := d.read(testPath + ".state")
			data[len(stateMagic)]++
			binary.LittleEndian.PutUint32(data[len(data)-4:], crc32.Checksum(data[:len(data)-4], castagnoli))
			d.put(testPath+".state", data)
		}, "bets.csv.state: version 4 is newer than this program"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			d, o := smallStore(t)
			row.change(d)
			s, err := openStore(context.Background(), d, smallOptions(), quiet)
			if err != nil {
				if row.want == "" || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("got %q, want %q", err, row.want)
				}
				return
			}
			defer s.close()
			if row.want != "" {
				t.Fatalf("got a start, want %q", row.want)
			}
			if err := o.verify(s, d.read(testPath)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAdoption takes over bets files of other programs, with a crash at every call of the start.
func TestAdoption(t *testing.T) {
	rows := []struct {
		name, file, want string
		bets             uint64
	}{
		{"empty", "", "", 0},
		{"ours", "1,a,b,1,1999-01-01,7\r\n", "1,a,b,1,1999-01-01,7\r\n", 1},
		{"no last line break", "1,a,b,1,1999-01-01,7", "1,a,b,1,1999-01-01,7\r\n", 1},
		{"torn line break", "1,a,b,1,1999-01-01,7\r", "1,a,b,1,1999-01-01,7\r\n", 1},
		{"LF", "1,a,b,1,1999-01-01,7\n2,a,b,1,1999-01-01,7\n", "1,a,b,1,1999-01-01,7\n2,a,b,1,1999-01-01,7\n", 2},
		{"BOM", "\ufeff1,a,b,1,1999-01-01,7\r\n", "\ufeff1,a,b,1,1999-01-01,7\r\n", 1},
		{"not CSV", "\"open\x00\xff\nquote", "\"open\x00\xff\nquote\r\n", 2},
		{"quoted line break", "1,\"a\r\nb\",c,1,1999-01-01,7\r\n", "1,\"a\r\nb\",c,1,1999-01-01,7\r\n", 1},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var crashed []*simDisk
			d := newSimDisk()
			d.put(testPath, []byte(row.file))
			d.before = func() { crashed = append(crashed, d.kill()) }
			s := openTest(t, d, testOptions())
			d.powerOff()
			s.close()
			for i, after := range append(crashed, d.kill()) {
				s := openTest(t, after, testOptions())
				if got := string(after.read(testPath)); got != row.want || s.state.bets != row.bets {
					t.Errorf("crash %d: got %q with %d bets, want %q with %d", i, got, s.state.bets, row.want, row.bets)
				}
				ses, _ := mustHello(t, s, sourceOf(0))
				g := mustSubmit(t, s, ses, 0)
				<-g.done
				s.close()
				if got, want := string(after.read(testPath)), row.want+string(batchOf(0, Resume{}).rows); got != want {
					t.Errorf("crash %d: with a batch more: got %d bytes, want %d", i, len(got), len(want))
				}
			}
		})
	}
}

// TestRecoverTwice checks that a second start changes nothing that counts, and repairs nothing.
func TestRecoverTwice(t *testing.T) {
	d, _ := smallStore(t)
	cutBack(t, d)
	var log bytes.Buffer
	var files []map[string]string
	for range 3 {
		log.Reset()
		s, err := openStore(context.Background(), d, smallOptions(), newLogger(&log, 0))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, map[string]string{"bets": string(d.read(testPath)),
			"state": string(d.read(testPath + ".state"))})
		if repaired := strings.Contains(log.String(), "action: recover"); repaired != (len(files) == 1) {
			t.Errorf("start %d: got repairs %v in\n%s", len(files), repaired, log.String())
		}
		for line := range strings.Lines(log.String()) {
			checkLogLine(t, strings.TrimSuffix(line, "\n"))
		}
		if len(files) == 1 && !strings.Contains(log.String(), "records: 3") {
			t.Errorf("the repair does not say how much: %s", log.String())
		}
		d.mu.Lock()
		next := d.kill()
		d.mu.Unlock()
		d.powerOff()
		s.close()
		d = next
	}
	if !maps.Equal(files[0], files[1]) || !maps.Equal(files[1], files[2]) {
		t.Error("another start changed the bets file or the snapshot")
	}
}

// copyFrozen copies a store that a version left behind, and returns the path of its bets file: a
// snapshot of one batch; more, two agencies that finished, and the draw in the log; and a bets file
// that has only the first row of those. want.csv and the CRCs in the tests were computed by other
// means. The segment is kept without the zeros behind its last record.
func copyFrozen(t *testing.T, version string) (path string) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"bets.csv", "bets.csv.state", "bets.csv.wal.00"} {
		data, err := os.ReadFile(filepath.Join("testdata", "store", version, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(name, ".wal.") {
			data = grown(data, walSegment)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "bets.csv")
}

// openFrozen opens a copy of such a store.
func openFrozen(t *testing.T, version string) *store {
	t.Helper()
	path := copyFrozen(t, version)
	want, err := os.ReadFile(filepath.Join("testdata", "store", version, "want.csv"))
	if err != nil {
		t.Fatal(err)
	}
	options := storeOptions{path: path, agencies: 2, winner: 9}
	// The records of the log that it shared, if it did.
	if records, err := os.ReadFile(filepath.Join("testdata", "store", version, "records")); err == nil {
		stream := newFakeStream(t)
		for ; len(records) > 0; records = records[4+binary.LittleEndian.Uint32(records):] {
			stream.records = append(stream.records, records[4:4+binary.LittleEndian.Uint32(records)])
		}
		options.shared, options.pace = stream.link(), &testPace
	}
	s := openTest(t, openTestDisk(t, path), options)
	t.Cleanup(func() { s.close() })
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("bets file: got %d bytes and %v, want %d", len(got), err, len(want))
	}
	if crc := crc32.Checksum(want, castagnoli); s.state.crc != crc {
		t.Errorf("CRC: got %08x, want %08x", s.state.crc, crc)
	}
	return s
}

// wantFrozen compares what a frozen store says.
func wantFrozen(t *testing.T, s *store, sequence, bets uint64, sources map[sourceKey]mark, winners map[uint8]string) {
	t.Helper()
	if s.state.sequence != sequence || s.state.bets != bets || s.state.sources.count() != len(sources) ||
		s.state.draw.drawn != 8 {
		t.Errorf("state: got sequence %d, %d bets, %d sources, %d drawn; want %d, %d, %d, 8", s.state.sequence,
			s.state.bets, s.state.sources.count(), s.state.draw.drawn, sequence, bets, len(sources))
	}
	for key, at := range sources {
		if got := s.state.sources.at(key); got != at {
			t.Errorf("source %v: got %+v, want %+v", key, got, at)
		}
	}
	<-s.drawn
	for agency, documents := range winners {
		var want []byte
		for _, document := range strings.Fields(documents) {
			want = appendString(want, document)
		}
		if got, _ := packedWinners(s, agency); !bytes.Equal(got, want) {
			t.Errorf("winners of agency %d: got %q, want %q", agency, got, want)
		}
	}
}

// TestFrozenV1 opens a store of version 1, which knew neither the CRC of the bets file nor how many
// bets of a source were stored.
func TestFrozenV1(t *testing.T) {
	s := openFrozen(t, "v1")
	wantFrozen(t, s, 8, 118, map[sourceKey]mark{
		sourceOf(0): {Resume{135, 0x04e20101}, 135},
		sourceOf(1): {Resume{12, 0xfb5e8fdd}, 12},
	}, map[uint8]string{1: "8", 2: "8"})
}

// TestFrozenV2 opens a store of version 2.
func TestFrozenV2(t *testing.T) {
	s := openFrozen(t, "v2")
	wantFrozen(t, s, 9, 178, map[sourceKey]mark{
		{1, "agency-1.csv"}: {Resume{118, 0x46d59a8e}, 109},
		{2, "agencia ñ"}:    {Resume{75, 0x0f69b032}, 69},
		{3, "refused.csv"}:  {Resume{1, 0x941cadad}, 0},
	}, map[uint8]string{1: "1008 1025 1042 1059 1076 1093 3008 5008", 2: "2008 4008 6008", 3: ""})
}

// TestFrozenV3 opens a store of version 3 whose log was shared, with a record in it that is void,
// the claim of a term, and the draw in the last record, which counts because the shared log has it.
func TestFrozenV3(t *testing.T) {
	s := openFrozen(t, "v3")
	wantFrozen(t, s, 13, 114, map[sourceKey]mark{
		sourceOf(0): {Resume{139, 0x942f8ec7}, 112},
		sourceOf(1): {Resume{2, 0x430e8d9c}, 2},
	}, map[uint8]string{1: "8", 2: ""})
	if at := s.state.tenancy; at.identity != testStore || at.term != 2 || at.chain != 0x94d1b813 {
		t.Errorf("got %+v", at)
	}
}

// TestSyncModes checks what the start says of each.
func TestSyncModes(t *testing.T) {
	for sync, want := range map[time.Duration]string{
		syncAlways: "and a power cut", syncNever: "a power cut may take all since the last checkpoint",
		200 * time.Millisecond: "a power cut may take the last 200ms",
	} {
		var log bytes.Buffer
		options := testOptions()
		options.sync = sync
		s, err := openStore(context.Background(), newSimDisk(), options, newLogger(&log, 0))
		if err != nil {
			t.Fatal(err)
		}
		s.close()
		if !strings.Contains(log.String(), want) {
			t.Errorf("sync %v: got %s, want %q", sync, log.String(), want)
		}
	}
}
