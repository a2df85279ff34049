//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"tp0/tools/proc"
	"tp0/tools/torture"
)

// A streamDoc is what the engine says of a stream, as far as these tests change it.
type streamDoc struct {
	Config map[string]any `json:"config"`
	State  struct {
		LastSeq int `json:"last_seq"`
	} `json:"state"`
}

// info asks for the cluster's stream.
func (c *cluster) info() (doc streamDoc) {
	c.t.Helper()
	if err := json.Unmarshal([]byte(c.api("STREAM.INFO.%s", nil)), &doc); err != nil {
		c.t.Fatal(err)
	}
	return doc
}

// api has an operator do something to the stream by hand. A map is sent as JSON.
func (c *cluster) api(call string, body map[string]any) string {
	c.t.Helper()
	var text []byte
	if body != nil {
		text, _ = json.Marshal(body)
	}
	answer, err := c.engines.Change(fmt.Sprintf(call, c.stream), string(text))
	if err != nil {
		c.t.Fatalf("%s: %v", call, err)
	}
	return string(answer)
}

// byHand changes the stream by hand while no engine is taken away.
func (c *cluster) byHand(change func(c *cluster)) {
	c.engines.ByHand.RLock()
	defer c.engines.ByHand.RUnlock() // a change that fails ends the test
	change(c)
}

// records returns what the stream has.
func (c *cluster) records() (all [][]byte) {
	c.t.Helper()
	for n := range c.info().State.LastSeq {
		var got struct {
			Message struct {
				Data []byte `json:"data"`
			} `json:"message"`
		}
		answer := c.api("STREAM.MSG.GET.%s", map[string]any{"seq": n + 1})
		if err := json.Unmarshal([]byte(answer), &got); err != nil {
			c.t.Fatal(err)
		}
		all = append(all, got.Message.Data)
	}
	return all
}

// publish puts a record into the stream that no office has made.
func (c *cluster) publish(record []byte) {
	c.t.Helper()
	a, err := c.engines.All[0].Dial()
	if err != nil {
		c.t.Fatal(err)
	}
	defer a.Close()
	answer, err := a.Ask(strings.ToLower(c.stream)+".log", "", record)
	if err != nil || !strings.Contains(string(answer), `"seq"`) {
		c.t.Fatalf("putting a record into the stream: %s, %v", answer, err)
	}
}

// remake deletes the stream, makes it anew with its settings but for those in changes, and puts
// records into it.
func (c *cluster) remake(changes map[string]any, records [][]byte) {
	c.t.Helper()
	config := c.info().Config
	for key, value := range changes {
		config[key] = value
	}
	c.api("STREAM.DELETE.%s", nil)
	c.api("STREAM.CREATE.%s", config)
	for _, record := range records {
		c.publish(record)
	}
}

// settings has the stream keep its records under other settings.
func (c *cluster) settings(changes map[string]any) {
	c.t.Helper()
	config := c.info().Config
	for key, value := range changes {
		config[key] = value
	}
	c.api("STREAM.UPDATE.%s", config)
}

// otherStore is the metadata of another store's stream.
var otherStore = map[string]any{"metadata": map[string]any{"tp0-store": strings.Repeat("5", 32)}}

// A spoiling is a way in which a stream is not the one any more that it was.
type spoiling struct {
	name  string
	spoil func(c *cluster)
	want  []string // in the one line of the next start
	late  bool     // an office that takes bets does not see it
}

// spoiled are those that a start sees at once.
var spoiled = []spoiling{
	{"another store's", func(c *cluster) { c.remake(otherStore, nil) },
		[]string{strings.Repeat("5", 32)}, false},
	{"made by hand", func(c *cluster) { c.remake(map[string]any{"metadata": map[string]any{}}, nil) },
		[]string{"-mode=replicate", "stream.name"}, false},
	{"a foreign record", func(c *cluster) { c.publish([]byte("Ana,Paz,1,2000-01-01,7574\r\n")) },
		[]string{"record", "another hand", "Healing"}, false},
	{"a record of its own, twice", func(c *cluster) {
		all := c.records()
		c.publish(all[len(all)-1])
	}, []string{"does not follow on the record before it", "Healing"}, false},
	{"two records exchanged", func(c *cluster) {
		all := c.records()
		n := len(all) - 1
		all[n], all[n-1] = all[n-1], all[n]
		c.remake(nil, all)
	}, []string{"record", "not the one that", "make a new stream"}, true},
	{"purged", func(c *cluster) {
		c.remake(map[string]any{"deny_purge": false}, c.records())
		c.api("STREAM.PURGE.%s", map[string]any{"keep": 1})
	}, []string{"deny_purge"}, false},
	{"one replica", func(c *cluster) { c.settings(map[string]any{"num_replicas": 1}) }, []string{"num_replicas"}, false},
	{"a bound", func(c *cluster) { c.settings(map[string]any{"max_msgs": 100_000}) }, []string{"max_msgs"}, false},
	{"an age", func(c *cluster) { c.settings(map[string]any{"max_age": 1_000_000_000_000_000}) },
		[]string{"max_age"}, false},
	{"old ones go first", func(c *cluster) { c.settings(map[string]any{"discard": "old"}) }, []string{"discard"}, false},
}

// lasting are those that are believed when they last for 30 s.
var lasting = []spoiling{
	{"deleted", func(c *cluster) { c.api("STREAM.DELETE.%s", nil) }, []string{"no such stream", "-mode=replicate"}, false},
	{"made anew, empty", func(c *cluster) { c.remake(nil, nil) },
		[]string{"ends with record 0", "make a new stream"}, false},
	{"without its last record", func(c *cluster) {
		all := c.records()
		c.remake(nil, all[:len(all)-1])
	}, []string{"the stream has lost records", "make a new stream"}, false},
}

// refuses has an office with some bets whose stream is spoiled while it is down, or while it runs.
func refuses(t *testing.T, es *proc.Engines, name string, row spoiling, running bool) {
	t.Helper()
	c := openCluster(t, es, name, 1)
	dir, l := clientDir(t, 30)
	c.client(dir, 1, 0, "-batch.maxAmount=10", "-batch.window=1").wantExit(exitDone)
	o := c.offices[0]
	before := o.stored(t)
	wantRows(t, before, l)
	if running {
		c.byHand(row.spoil)
	} else {
		o.stop()
		c.byHand(row.spoil)
		o.begin(t)
	}
	o.wantExit(exitFailed)
	wantOneLine(t, "standard error", o.errs.String(), append([]string{"tream"}, row.want...)...)
	if got := o.stored(t); got != before {
		t.Errorf("got %d bytes of bets after the start, want the %d that were there", len(got), len(before))
	}
	if !strings.Contains(o.errs.String(), "no such stream") {
		c.byHand(func(c *cluster) { c.api("STREAM.DELETE.%s", nil) })
	}
}

// refusesAll spoils streams: the next start says in one line what is wrong and what to do, and
// changes nothing. An office that takes bets stops for the same reasons.
func refusesAll(t *testing.T, es *proc.Engines, prefix string, running bool, rows []spoiling) {
	t.Helper()
	var ended sync.WaitGroup
	for i, row := range rows {
		if running && row.late {
			continue
		}
		beside(&ended, func() {
			t.Run(row.name, func(t *testing.T) { refuses(t, es, fmt.Sprint(prefix, i), row, running) })
		})
	}
	ended.Wait()
}

// TestTortureStreamCut spoils streams in ways that are believed late.
func TestTortureStreamCut(t *testing.T) {
	torture.Count(t, "TORTURE", 1)
	es := openEngines(t, 3)
	refusesAll(t, es, "S", false, lasting)
	refusesAll(t, es, "L", true, append(lasting, spoiled...))
}
