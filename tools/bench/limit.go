package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// limitChunk is what L writes before each sync.
	limitChunk = 512 << 10
	// smallChunk is what a server writes that syncs every batch by itself.
	smallChunk = 8 << 10
	// smallBytes is how much is written that way: all the rows would take minutes on a slow disk.
	smallBytes = 8 << 20
	// twiceLog is how long a log is, and how much of a file is made durable at once, as in the server.
	twiceLog = 16 << 20
)

// limit appends the first most bytes of a file to a fresh file in the folder of the stores, chunk
// bytes at a time, each made durable before the next. It returns bytes a second, and how long
// each write with its sync took, sorted. The time to read the rows does not count.
func (b *bench) limit(from string, chunk int, most int64) (rate float64, times []time.Duration, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, nil, err
	}
	defer in.Close()
	name := filepath.Join(b.dir, "limit")
	out, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, nil, err
	}
	defer os.Remove(name)
	defer out.Close()
	var took time.Duration
	written, buf := int64(0), make([]byte, chunk)
	for written < most {
		n, err := io.ReadFull(in, buf[:min(int64(chunk), most-written)])
		if n == 0 && errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, nil, err
		}
		began := time.Now()
		if _, err := out.Write(buf[:n]); err != nil {
			return 0, nil, err
		}
		if err := datasync(out); err != nil {
			return 0, nil, err
		}
		times = append(times, time.Since(began))
		took += times[len(times)-1]
		written += int64(n)
	}
	slices.Sort(times)
	return float64(written) / took.Seconds(), times, nil
}

// twice returns how many bytes a second of the rows a program writes that does what the promise asks
// of a disk, and nothing else: each chunk goes to a log, over blocks that exist, and is made durable;
// then it goes to a file, which is made durable beside that from time to time. It is the most that
// the server could reach with processors that cost nothing.
func (b *bench) twice(from string) (rate float64, err error) {
	rows, err := os.ReadFile(from)
	if err != nil {
		return 0, err
	}
	var files [2]*os.File
	for i, name := range []string{"limit.log", "limit"} {
		name = filepath.Join(b.dir, name)
		if files[i], err = os.Create(name); err != nil {
			return 0, err
		}
		defer os.Remove(name)
		defer files[i].Close()
	}
	log, file := files[0], files[1]
	if _, err = log.Write(make([]byte, twiceLog)); err == nil {
		err = log.Sync()
	}
	synced := make(chan error, 1) // the file's last sync
	synced <- err
	began := time.Now()
	for at := 0; at < len(rows) && err == nil; at += limitChunk {
		chunk := rows[at:min(at+limitChunk, len(rows))]
		if _, err = log.WriteAt(chunk, int64(at%twiceLog)); err == nil {
			err = datasync(log)
		}
		if err == nil {
			_, err = file.Write(chunk)
		}
		if err == nil && (at+limitChunk)%twiceLog == 0 {
			err = <-synced
			go func() { synced <- datasync(file) }()
		}
	}
	return float64(len(rows)) / time.Since(began).Seconds(), errors.Join(err, <-synced)
}

// limitOf returns L for the rows of d, in bets a second.
func (b *bench) limitOf(d *dataset) (float64, error) {
	bytes, _, err := b.limit(d.expected, limitChunk, d.want.bytes)
	return bytes / d.rowBytes(), err
}

// rowBytes returns the mean length of a row.
func (d *dataset) rowBytes() float64 { return float64(d.want.bytes) / float64(d.want.total()) }
