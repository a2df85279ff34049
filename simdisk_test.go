package main

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// A simDisk is a disk in memory. What was written is seen at once by whoever reads (the page
// cache), and is on the medium after a sync. kill keeps both apart, as kill -9 does; powerCut
// makes one of the states that the medium may be in.
//
// It is harsher than ext4 and xfs are: between two syncs of a file any of its writes and
// truncations may be on the medium or not, in any combination, each whole or torn at any byte;
// a file may have grown without its bytes; changes of the folder that no syncDir covers survive
// up to some point or in any combination.
type simDisk struct {
	mu     sync.Mutex
	dir    map[string]*simInode // as programs see it
	medium map[string]*simInode // as it is on the medium
	moves  []simMove            // changes of dir since the last syncDir, in order
	calls  int                  // calls that change something
	before func()               // called before each of those, with the disk locked; nil: nothing
	off    bool                 // the power is off: every call fails
	did    []simCall            // the last calls that changed something, and those before the crash
}

// A simCall is what a call did, for whoever has to find out why a store is not what it should be.
type simCall struct {
	what string
	data []byte // that was written
}

// simKept is how many calls a disk knows at least.
const simKept = 200

// note notes a call. d.mu is held.
func (d *simDisk) note(data []byte, what string, args ...any) {
	if len(d.did) >= 2*simKept {
		d.did = slices.Clone(d.did[simKept:])
	}
	d.did = append(d.did, simCall{fmt.Sprintf(what, args...), data})
}

// history returns the last calls, a line each.
func (d *simDisk) history() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b strings.Builder
	for _, c := range d.did[max(0, len(d.did)-simKept):] {
		fmt.Fprintf(&b, "%s %.600q\n", c.what, c.data)
	}
	return b.String()
}

// A simInode is a file without its name.
type simInode struct {
	cache   []byte      // as programs see it
	medium  []byte      // as it is on the medium
	changes []simChange // from medium to cache, in order
}

// A simChange is a write of data at offset at, or a truncation to at.
type simChange struct {
	at       int64
	data     []byte
	truncate bool
}

// A simMove is a change of the folder: from loses its file and to gets it. An empty from is a
// creation, an empty to a removal.
type simMove struct {
	from, to string
	inode    *simInode
}

// errPowerOff is what every call gets after powerOff. There would be nobody to try again: it is
// fatal, whatever it meets.
var errPowerOff = &fatalError{fmt.Errorf("simulated: the power is off: %w", syscall.EIO)}

func newSimDisk() *simDisk {
	return &simDisk{dir: map[string]*simInode{}, medium: map[string]*simInode{}}
}

// enter locks the disk for a call that changes something.
func (d *simDisk) enter() error {
	d.mu.Lock()
	if d.off {
		return errPowerOff
	}
	d.calls++
	if d.before != nil {
		d.before()
	}
	if d.off { // before has made a crash of this moment
		return errPowerOff
	}
	return nil
}

func (d *simDisk) open(name string, flag int) (file, error) {
	d.mu.Lock()
	inode, off := d.dir[name], d.off
	d.mu.Unlock()
	if off {
		return nil, errPowerOff
	}
	if inode == nil && flag&os.O_CREATE == 0 {
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	}
	f := &simFile{d, inode, name}
	if inode != nil && flag&os.O_TRUNC == 0 {
		return f, nil
	}
	if inode != nil {
		return f, f.truncate(0)
	}
	err := d.enter()
	defer d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	f.inode = new(simInode)
	d.move(simMove{to: name, inode: f.inode})
	return f, nil
}

// move changes the folder. d.mu is held.
func (d *simDisk) move(m simMove) {
	d.note(nil, "move %q to %q", m.from, m.to)
	m.apply(d.dir)
	d.moves = append(d.moves, m)
}

func (m simMove) apply(dir map[string]*simInode) {
	if m.from != "" && dir[m.from] == m.inode {
		delete(dir, m.from)
	}
	if m.to != "" {
		dir[m.to] = m.inode
	}
}

func (d *simDisk) rename(from, to string) error {
	err := d.enter()
	defer d.mu.Unlock()
	if err == nil {
		d.move(simMove{from, to, d.dir[from]})
	}
	return err
}

func (d *simDisk) syncDir() error {
	err := d.enter()
	defer d.mu.Unlock()
	if err == nil {
		d.note(nil, "syncDir")
		d.medium, d.moves = maps.Clone(d.dir), nil
	}
	return err
}

// A simFile is an open file of a simDisk.
type simFile struct {
	d     *simDisk
	inode *simInode
	name  string // that it was opened by
}

func (f *simFile) Close() error               { return nil }
func (f *simFile) lock() error                { return nil }
func (f *simFile) reserve(int64, int64) error { return nil }
func (f *simFile) forget(int64)               {}

func (f *simFile) size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.inode.cache)), nil
}

func (f *simFile) ReadAt(p []byte, at int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.off {
		return 0, errPowerOff
	}
	n := 0
	if at < int64(len(f.inode.cache)) {
		n = copy(p, f.inode.cache[at:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *simFile) WriteAt(p []byte, at int64) (int, error) {
	err := f.d.enter()
	defer f.d.mu.Unlock()
	if err != nil {
		return 0, err
	}
	c := simChange{at: at, data: slices.Clone(p)}
	f.d.note(c.data, "write to %s at %d, %d bytes:", f.name, at, len(p))
	f.inode.cache = c.apply(f.inode.cache)
	f.inode.changes = append(f.inode.changes, c)
	return len(p), nil
}

func (f *simFile) truncate(size int64) error {
	err := f.d.enter()
	defer f.d.mu.Unlock()
	if err == nil {
		f.d.note(nil, "truncate %s to %d", f.name, size)
		c := simChange{at: size, truncate: true}
		f.inode.cache = c.apply(f.inode.cache)
		f.inode.changes = append(f.inode.changes, c)
	}
	return err
}

func (f *simFile) sync() error { return f.datasync() }

func (f *simFile) datasync() error {
	err := f.d.enter()
	defer f.d.mu.Unlock()
	if err == nil {
		f.d.note(nil, "sync of %s", f.name)
		for _, c := range f.inode.changes {
			f.inode.medium = c.apply(f.inode.medium)
		}
		f.inode.changes = nil
	}
	return err
}

// apply does the change to data.
func (c simChange) apply(data []byte) []byte {
	end := int(c.at) + len(c.data)
	if c.truncate && end < len(data) {
		return data[:end]
	}
	data = grown(data, end)
	copy(data[c.at:], c.data)
	return data
}

// grown returns data with zeros behind it up to size.
func grown(data []byte, size int) []byte {
	if size <= len(data) {
		return data
	}
	old := len(data)
	data = slices.Grow(data, size-old)[:size]
	clear(data[old:])
	return data
}

// powerOff makes every later call fail, so that a store on the disk ends without changing
// anything.
func (d *simDisk) powerOff() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off, d.before = true, nil
}

// isOff reports whether the power is off.
func (d *simDisk) isOff() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.off
}

// kill returns the disk as the next process finds it after a kill -9: all is seen, and what was
// not synced is still not on the medium. d.mu is held.
func (d *simDisk) kill() *simDisk {
	copies := map[*simInode]*simInode{nil: nil}
	duplicate := func(i *simInode) *simInode {
		if _, ok := copies[i]; !ok {
			copies[i] = &simInode{slices.Clone(i.cache), slices.Clone(i.medium), slices.Clone(i.changes)}
		}
		return copies[i]
	}
	k := newSimDisk()
	k.did = slices.Clone(d.did)
	k.note(nil, "KILL")
	for name, i := range d.dir {
		k.dir[name] = duplicate(i)
	}
	for name, i := range d.medium {
		k.medium[name] = duplicate(i)
	}
	for _, m := range d.moves {
		k.moves = append(k.moves, simMove{m.from, m.to, duplicate(m.inode)})
	}
	return k
}

// powerCut returns the disk as a power cut may leave it. d.mu is held.
func (d *simDisk) powerCut(rng *rand.Rand) *simDisk {
	names := maps.Clone(d.medium)
	prefix, mixed := rng.IntN(len(d.moves)+1), rng.IntN(3) == 0
	for i, m := range d.moves {
		if mixed && rng.IntN(2) == 0 || !mixed && i < prefix {
			m.apply(names)
		}
	}
	after := newSimDisk()
	after.did = slices.Clone(d.did)
	after.note(nil, "POWER CUT")
	fate := rng.IntN(4) // 0: all that was not synced is lost, 1: all of it survives, else: each its own way
	sorted := slices.Sorted(maps.Keys(names))
	for _, name := range sorted {
		data := slices.Clone(names[name].medium)
		for _, c := range names[name].changes {
			switch {
			case fate == 0:
			case fate == 1:
				data = c.apply(data)
			default:
				data = c.survive(data, rng)
			}
		}
		inode := &simInode{cache: data, medium: slices.Clone(data)}
		after.dir[name], after.medium[name] = inode, inode
	}
	return after
}

// survive does to data what a power cut may leave of the change.
func (c simChange) survive(data []byte, rng *rand.Rand) []byte {
	part := rng.IntN(8)
	if part == 0 { // lost, though the length may have grown
		if !c.truncate && rng.IntN(2) == 0 {
			return grown(data, int(c.at)+len(c.data))
		}
		return data
	}
	if part <= 3 || c.truncate {
		if part <= 5 {
			return c.apply(data)
		}
		return data
	}
	from, to := 0, rng.IntN(len(c.data)+1) // torn: only this much came
	switch part {
	case 5: // only the end came
		from, to = to, len(c.data)
	case 6: // the middle
		from = rng.IntN(to + 1)
	case 7: // all but the middle
		at := rng.IntN(to + 1)
		data = simChange{at: c.at, data: c.data[:at]}.apply(data)
		from, to = to, len(c.data)
	}
	if from < to {
		data = simChange{at: c.at + int64(from), data: c.data[from:to]}.apply(data)
	}
	if rng.IntN(2) == 0 {
		data = grown(data, int(c.at)+len(c.data))
	}
	return data
}

// put makes a file that is on the medium.
func (d *simDisk) put(name string, data []byte) {
	inode := &simInode{cache: slices.Clone(data), medium: slices.Clone(data)}
	d.dir[name], d.medium[name] = inode, inode
}

// read returns a file as programs see it; nil if there is none.
func (d *simDisk) read(name string) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if inode := d.dir[name]; inode != nil {
		return slices.Clone(inode.cache)
	}
	return nil
}
