package main

import "time"

// A company decides whether a group waits for more before it is committed.
//
// Left alone, clients with few batches under way fall into parts that never meet: while one part's group is synced the others' batches come, and each part pays
// for a sync of its own. So a group is held back while sources that have just been answered are about to join it: all of them as long as it is small, since its
// sync costs what an empty one's would; as many as are in it already, once it is not, since then the disk should be busy with one half while the other comes.
//
// It is held back at most as long as two commits take, counted from the last one's end (and up to a millisecond more, where a timer must end it), and only for sources that sent on as fast as that the last time. So nobody
// waits for a client that pauses, a source that is alone never waits, and nor does anyone where a sync costs nothing. Measured (docs/performance.md): 4.7
// batches a sync where there were 1.8, five clients with one batch under way each.
type company struct {
	cost    time.Duration // of a commit, about the median of the last ones
	settled time.Time     // when the last one was done
	round   uint64        // counts the times that waiting was given up
	awaited int           // sources awaited in this round
}

// A companion is a source's part in a company.
type companion struct {
	answered time.Time // when all of it was durable, so that its client could send on; zero: its client has sent on, or is gone
	prompt   bool      // its client sent on soon the last time
	round    uint64    // in which it is awaited, from 1; 0: it is not
}

const (
	// companyCommits is how many times the cost of a commit a group waits at most. With 1 not all came in time on a machine of two processors; 3 was no better than 2.
	companyCommits = 2
	// companyBytes is the size up to which a group is small: a commit of 64 KiB takes 1.1 times as long as one of 8, and one of 320 KiB 1.6 times.
	companyBytes = 64 << 10
)

// committed notes what a commit has cost, and that it is done.
func (c *company) committed(began, now time.Time) {
	// A step towards it, however far it is: one commit that met a checkpoint says nothing of the others.
	if step := c.cost/8 + time.Microsecond; now.Sub(began) > c.cost {
		c.cost += step
	} else {
		c.cost = max(c.cost-step, 0)
	}
	c.settled = now
}

// answered notes that all of a source is durable since the last commit: its client can send on.
func (c *company) answered(m *companion) {
	m.answered = c.settled
	if m.prompt && m.round != c.round+1 {
		m.round = c.round + 1
		c.awaited++
	}
}

// returned notes that a source's client has sent on.
func (c *company) returned(m *companion, now time.Time) {
	m.prompt = now.Before(m.answered.Add(c.patience()))
	c.left(m)
}

// left notes that a source is not waited for, whether its client has sent on or is gone.
func (c *company) left(m *companion) {
	if m.round == c.round+1 {
		c.awaited--
	}
	m.answered, m.round = time.Time{}, 0
}

// patience is how long a group waits at most.
func (c *company) patience() time.Duration { return companyCommits * c.cost }

// deadline is until when a group waits at most.
func (c *company) deadline() time.Time { return c.settled.Add(c.patience()) }

// enough tells whether a group of so many sources and bytes waits for no more.
func (c *company) enough(sources, bytes int) bool {
	return c.awaited == 0 || bytes >= companyBytes && c.awaited <= sources
}

// giveUp tells whether waiting has taken too long; then those who have not come are no longer waited for.
func (c *company) giveUp(now time.Time) bool {
	if now.Before(c.deadline()) {
		return false
	}
	c.round++
	c.awaited = 0
	return true
}
