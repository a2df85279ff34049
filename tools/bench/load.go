package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"
)

// A load is what one run of a server and its clients showed.
type load struct {
	took      time.Duration // from the start of the first client to the end of the last
	rate      float64       // stored bets a second of that
	serverCPU float64       // µs a bet, start and stop included
	clientCPU float64
	serverRSS float64 // peak, bytes
	clientRSS float64 // of the client that had most
	batches   float64 // a sync
	busy      float64 // processors that all of them kept busy, on average
}

// load lets one client for each file of d send it to a server with an empty store, and checks
// that all of it is there.
func (b *bench) load(ctx context.Context, d *dataset, window int) (l load, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var clients []*process
	var srv *server
	defer func() { // whatever went wrong, nothing is left running
		cancel()
		if srv != nil {
			<-srv.Done
		}
		for _, c := range clients {
			<-c.Done
		}
	}()
	if srv, err = b.startServer(ctx); err != nil {
		return l, err
	}
	if b.beside != nil {
		defer b.beside(srv.address)()
	}
	began := time.Now()
	if clients, err = b.startClients(ctx, srv, d, window); err != nil {
		return l, err
	}
	for _, c := range clients {
		if err := c.Wait(); err != nil {
			return l, err
		}
		l.took = max(l.took, c.Began.Sub(began)+c.Took)
	}
	if err := srv.Stop(); err != nil {
		return l, err
	}
	if err := d.check(srv.bets()); err != nil {
		return l, err
	}
	if err := l.account(srv, clients, d); err != nil {
		return l, err
	}
	return l, srv.drop()
}

// startClients starts one client for each file of d.
func (b *bench) startClients(ctx context.Context, srv *server, d *dataset, window int) ([]*process, error) {
	var clients []*process
	for i, file := range d.files {
		id := strconv.Itoa(i + 1)
		c, err := b.start(ctx, filepath.Join(srv.dir, "client-"+id+".log"), b.withKeys("agency-"+id+".pem",
			"-mode=client", "-id="+id, "-server.address="+srv.address,
			"-data.file="+file, "-data.rejects="+filepath.Join(srv.dir, "rejects-"+id+".csv"),
			"-loop.amount=0", "-loop.period=0s", "-batch.maxAmount=150", "-batch.window="+strconv.Itoa(window))...)
		if err != nil {
			return clients, err
		}
		clients = append(clients, c)
	}
	return clients, nil
}

// account takes the figures from processes that have ended.
func (l *load) account(srv *server, clients []*process, d *dataset) error {
	bets := float64(d.bets)
	l.rate = float64(d.want.total()) / l.took.Seconds()
	l.serverCPU = float64(srv.CPU().Nanoseconds()) / 1e3 / bets
	l.serverRSS = float64(srv.memory.Peak())
	for _, c := range clients {
		l.clientCPU += float64(c.CPU().Nanoseconds()) / 1e3 / bets
		l.clientRSS = max(l.clientRSS, float64(c.memory.Peak()))
	}
	l.busy = (l.serverCPU + l.clientCPU) * bets / 1e6 / l.took.Seconds()
	batches, err := srv.findNumber("close_store", "batches", "lotes")
	if err != nil {
		return err
	}
	// each commit is a sync, but for a few at new segments
	syncs, err := srv.findNumber("close_store", "syncs", "commits")
	if err != nil {
		return err
	}
	if syncs == 0 {
		return errors.New("a server that stored bets and synced nothing")
	}
	l.batches = batches / syncs
	return nil
}

// round measures L and each window in turn. L is measured before each load: its median is the L
// of the round.
func (b *bench) round(ctx context.Context) error {
	small, syncs, err := b.limit(b.data.expected, smallChunk, smallBytes)
	if err != nil {
		return err
	}
	twice, err := b.twice(b.data.expected)
	if err != nil {
		return err
	}
	var limits []float64
	loads := make([]load, len(b.windows))
	for i, window := range b.windows {
		l, err := b.limitOf(b.data)
		if err != nil {
			return err
		}
		limits = append(limits, l)
		if loads[i], err = b.load(ctx, b.data, window); err != nil {
			return fmt.Errorf("window %d: %w", window, err)
		}
		if err := b.redisLoad(ctx, window, loads[i]); err != nil {
			return err
		}
		if err := b.keyedLoad(ctx, window, loads[i]); err != nil {
			return err
		}
	}
	limit := median(limits)
	b.table.add(limitRate, limit/1e6)
	b.table.add(limitBytes, limit*b.data.rowBytes()/1e6)
	b.table.add(twiceOfLimit, twice/b.data.rowBytes()/limit)
	b.table.add(smallRate, small/b.data.rowBytes()/1e6)
	b.table.add(smallSpread, float64(quantile(syncs, 0.99))/float64(quantile(syncs, 0.50)))
	for i, window := range b.windows {
		b.table.addLoad(window, loads[i], limit)
	}
	return nil
}

// realLoad sends the course's data at the default window.
func (b *bench) realLoad(ctx context.Context) error {
	if b.real == nil {
		return nil
	}
	l, err := b.load(ctx, b.real, 32)
	if err != nil {
		return fmt.Errorf("the course's data: %w", err)
	}
	b.table.add(realTime, l.took.Seconds())
	return nil
}

// growthLoads compares the usual load with one of ten times the bets, and that one with the same
// bets of ten times the clients: with fewer bets the start of so many processes would count most.
// The large files are made anew each time: they are gone while the other measurements run.
func (b *bench) growthLoads(ctx context.Context) error {
	usual, err := b.load(ctx, b.data, 32)
	if err != nil {
		return err
	}
	before := usual.rate
	for _, g := range []struct {
		metric  metric
		clients int
	}{{moreBets, b.clients}, {moreClients, min(b.clients*10, maxAgencies)}} {
		large, err := b.makeSamples(ctx, "growth", b.rows*10, g.clients)
		if err != nil {
			return err
		}
		l, err := b.load(ctx, large, 32)
		if err != nil {
			return fmt.Errorf("%d bets of %d clients: %w", b.rows*10, g.clients, err)
		}
		b.table.add(g.metric, l.rate/before)
		b.table.add(growthServerRSS, l.serverRSS/mebi)
		b.table.add(growthClientRSS, l.clientRSS/mebi)
		before = l.rate
		if err := large.remove(); err != nil {
			return err
		}
	}
	return nil
}
