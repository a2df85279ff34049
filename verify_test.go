package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// verifyTest verifies a store on a disk of the tests and returns what it prints.
func verifyTest(d disk, path string) (printed string, err error) {
	v, err := verifyStore(d, path, rule{maxNumber: 9998}, 0)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	err = v.print(&out)
	return out.String(), err
}

// TestVerifyFlips flips a bit of every byte of every file of a store whose last records are in the
// log alone. All is found but what nothing reads: the rest of a header's page, what stands behind a
// record in its last page, and pages behind the last record.
func TestVerifyFlips(t *testing.T) {
	t.Parallel()
	d, _ := smallStore(t)
	want, err := verifyTest(d, testPath)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".state", ".wal.00", ".wal.01"} {
		found, harmless := 0, 0
		for i, b := range d.read(testPath + name) {
			read := !strings.Contains(name, ".wal.") || inWALUse(d.read(testPath+name), i)
			if !read && skipZeros(d.read(testPath+name), i) {
				continue
			}
			k := d.kill()
			k.put(testPath+name, d.read(testPath+name))
			k.dir[testPath+name].cache[i] = b ^ 1<<(i%8)
			calls := k.calls
			got, err := verifyTest(k, testPath)
			switch {
			case read && (err == nil || !strings.Contains(err.Error(), testPath) ||
				strings.Contains(err.Error(), "\n")):
				t.Fatalf("%s, byte %d: got %v, want one line that names a file", testPath+name, i, err)
			case !read && (err != nil || got != want):
				t.Fatalf("%s, byte %d: got %v and %s, want nothing found: nothing reads it", testPath+name, i, err, got)
			case k.calls != calls:
				t.Fatalf("%s, byte %d: verify made %d calls that change something", testPath+name, i, k.calls-calls)
			case read:
				found++
			default:
				harmless++ // TestStoreFlips: a start has all, too
			}
		}
		t.Logf("%s: %d found, %d harmless", testPath+name, found, harmless)
	}
}

// inWALUse reports whether byte i of a segment is of its header or of a record of its epoch.
func inWALUse(data []byte, i int) bool {
	at := i &^ (walPage - 1)
	d := decoder{data: data[at:]}
	if at == 0 {
		return i < walHead
	}
	d.u32()
	size, epoch := d.u32(), d.u64()
	header := decoder{data: data[16:]}
	return epoch == header.u64() && i-at < walRecordHead+int(size)
}

// TestVerifyDamage changes whole rows and files: the error says which line or byte, and what it
// means.
func TestVerifyDamage(t *testing.T) {
	t.Parallel()
	rows := func(change func(rows []string) []string) func(d *simDisk) {
		return func(d *simDisk) {
			all := strings.SplitAfter(string(d.read(testPath)), "\r\n")
			d.put(testPath, []byte(strings.Join(change(all[:len(all)-1]), "")))
		}
	}
	const last = -1
	insert := func(row string, at int) func(d *simDisk) {
		return rows(func(rows []string) []string {
			if at == last {
				return append(rows, row)
			}
			return append(rows[:at:at], append([]string{row}, rows[at:]...)...)
		})
	}
	tests := []struct {
		name   string
		change func(d *simDisk)
		want   string
	}{
		{"row added", insert("1,a,b,1,1999-01-01,1\r\n", 1),
			"bets.csv.wal.00: record at byte 4096: its rows are not those of bets.csv, which differs at byte"},
		{"row added at the end", insert("1,a,b,1,1999-01-01,1\r\n", last),
			"bets.csv goes on for 22 bytes behind byte"},
		{"row removed at the end", rows(func(rows []string) []string { return rows[:len(rows)-1] }),
			"bets.csv ends at byte"},
		{"all rows removed", rows(func([]string) []string { return nil }),
			"bets.csv has 0 bytes, and bets.csv.state says"},
		{"rows swapped", rows(func(rows []string) []string {
			rows[0], rows[1] = rows[1], rows[0]
			return rows
		}), "bets.csv: the CRC-32C of its first"},
		{"row changed, no bet", rows(func(rows []string) []string {
			rows[2] = strings.Repeat("x", len(rows[2])-2) + "\r\n"
			return rows
		}), "changed one of them (line 3 (byte"},
		{"bets file gone", func(d *simDisk) { delete(d.dir, testPath) }, "bets.csv"},
		{"snapshot gone", func(d *simDisk) { delete(d.dir, testPath+".state") }, "there is no store"},
		{"segment gone", func(d *simDisk) { delete(d.dir, testPath+".wal.00") }, "bets.csv.wal.01: damaged at byte"},
		{"log gone", func(d *simDisk) {
			delete(d.dir, testPath+".wal.00")
			delete(d.dir, testPath+".wal.01")
		}, "bets.csv goes on for"},
		{"number of rows", func(d *simDisk) {
			s, _, _ := parseState(d.read(testPath + ".state"))
			s.bets++
			d.put(testPath+".state", appendState(nil, &s))
		}, "they are not of one store"},
		{"another store's snapshot", func(d *simDisk) {
			s, _, _ := parseState(d.read(testPath + ".state"))
			s.crc++
			d.put(testPath+".state", appendState(nil, &s))
		}, "log and bets.csv.state are not of one store"},
	}
	for _, tt := range tests {
		d, _ := smallStore(t)
		tt.change(d)
		if printed, err := verifyTest(d, testPath); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v and %q, want %q", tt.name, err, printed, tt.want)
		}
	}
}

// TestVerifyAdopted adopts lines that no server writes: they are said by line.
func TestVerifyAdopted(t *testing.T) {
	t.Parallel()
	const good = "1,Ana,\"Paz, Gil\",1,1999-01-01,7\r\n"
	for row, want := range map[string]string{
		good:                                "",
		"0,a,b,1,1999-01-01,7\r\n":          "line 2 (byte 33) is no bet that a server accepts: agency is not 1 to 255",
		"256,a,b,1,1999-01-01,7\r\n":        "line 2 (byte 33) has an agency",
		"1,a,b,1,1999-02-30,7\r\n":          "line 2 (byte 33) is no bet that a server accepts: birthdate",
		"1,a,b,1,1999-01-01,9999\r\n":       "line 2 (byte 33) is no bet that a server accepts: number",
		"1,a,b,1,1999-01-01,007\r\n":        "line 2 (byte 33) is not as a server writes",
		"01,a,b,1,1999-01-01,7\r\n":         "line 2 (byte 33) is not as a server writes",
		"1,\"a\",b,1,1999-01-01,7\r\n":      "line 2 (byte 33) is not as a server writes",
		"1,a,b,1,1999-01-01\r\n":            "line 2 (byte 33) has 5 fields",
		"1,a,b,1,1999-01-01,7,x\r\n":        "line 2 (byte 33) has 7 fields",
		"\"open\r\n":                        "line 2 (byte 33) has 0 fields",
		"1,a,b,1,1999-01-01,7\n" + good:     "line 3",
		"1,a,b,1,1999-01-01,7\r\r\n":        "line 2",
		"\r\n" + good:                       "line 3",
		"1,a,b,1,1999-01-01,7\n":            "the last line does not end in CR LF",
		"1,\"a\r\nb\",b,1,1999-01-01,7\r\n": "line 2 (byte 33) is no bet that a server accepts: first name has",
	} {
		d := newSimDisk()
		d.put(testPath, []byte(good+row+good))
		if want == "the last line does not end in CR LF" {
			d.put(testPath, []byte(good+row))
		}
		openTest(t, d, testOptions()).close()
		printed, err := verifyTest(d, testPath)
		if want == "" && err == nil && strings.Contains(printed, "agency: 1 | bets: 3 |") {
			continue
		}
		if want == "" || err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "adopted") {
			t.Errorf("%q: got %v and %q, want %q", row, err, printed, want)
		}
	}
}

// TestVerifyFrozen verifies the frozen stores before and after their first start.
func TestVerifyFrozen(t *testing.T) {
	for version, want := range map[string]string{"v1": "version 1", "v2": "bets.csv ends at byte"} {
		path := copyFrozen(t, version)
		if _, err := verifyTest(new(osDisk), path); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "start") {
			t.Errorf("%s: got %v, want %q, and that it is to be started", version, err, want)
		}
		openTest(t, openTestDisk(t, path), storeOptions{path: path, agencies: 2, winner: 9}).close()
		printed, err := verifyTest(new(osDisk), path)
		if err != nil || !strings.Contains(printed, "drawn: 8 | sha256: ") {
			t.Errorf("%s, started: got %v and %s", version, err, printed)
		}
	}
}

// storeLine returns the line of what verify prints that is about the stream.
func storeLine(t *testing.T, d disk) string {
	t.Helper()
	printed, err := verifyTest(d, testPath)
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(printed, "store: ")
	if i < 0 {
		t.Fatalf("no line about the stream in %s", printed)
	}
	return strings.SplitN(printed[i:], "\n", 2)[0]
}

// TestVerifyShared verifies the stores of two servers that share a log, beside them: both have the
// same. A record of which nothing is known yet is told, and is no damage.
func TestVerifyShared(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	for range 20 { // while the second follows
		p.work(t)
		for _, d := range p.disks {
			storeLine(t, d.disk)
		}
	}
	awaitSame(t, p.stream, p.stores[1])
	line := storeLine(t, p.disks[0].disk)
	want := fmt.Sprintf("store: %v | term: 1 | record: %d | chain: ", testStore, p.stream.length())
	if !strings.HasPrefix(line, want) || !strings.HasSuffix(line, " | pending: no") {
		t.Errorf("got %s, want %s…", line, want)
	}
	if other := storeLine(t, p.disks[1].disk); other != line {
		t.Errorf("got %s and %s of the other", line, other)
	}
	p.stream.change(func() { p.links[0].cut = true })
	if err := p.w.hello(0); err == nil {
		err = p.w.submit(0)
		if err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "a record that is pending", func() bool { return p.stores[0].facts().trouble != nil })
	want = fmt.Sprintf("pending: %d", p.stream.length()+1)
	if got := storeLine(t, p.disks[0].disk); !strings.HasSuffix(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestVerifyStamps adds a record to a store of a stream that is intact and whose stamp is wrong: it
// is found and named.
func TestVerifyStamps(t *testing.T) {
	t.Parallel()
	p := newPair(t, nil)
	d := p.disks[0].disk.(*simDisk).kill()
	for _, tt := range []struct {
		name   string
		change func(by *stamp)
		want   string // empty: the record is as it should be
	}{
		{"good", func(by *stamp) {}, ""},
		{"another before it", func(by *stamp) { by.prev++ }, ": its record does not follow on the record before it"},
		{"another store", func(by *stamp) { by.identity[0]++ }, "its record is of another store ("},
		{"another term: void", func(by *stamp) { by.term += 2 }, ""},
	} {
		k := d.kill()
		v, err := verifyStore(k, testPath, rule{maxNumber: 9998}, 0)
		if err != nil {
			t.Fatal(err)
		}
		v.takeIn()
		w, _, _, err := openTestWAL(k, false, v.old.sequence)
		if err != nil {
			t.Fatal(err)
		}
		rec, by := redo{drawn: noNumber}, v.state.stamp()
		tt.change(&by)
		buf := rec.seal(make([]byte, redoRowsAt), v.state.length, v.state.crc, by)
		if err := appendTest(w, string(buf[walRecordHead:])); err != nil {
			t.Fatal(err)
		}
		switch _, err := verifyTest(k, testPath); {
		case tt.want == "" && err != nil, tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) ||
			strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}
