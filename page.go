//go:build !nohttp && !notls

package main

import (
	"fmt"
	"html"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What the page says in words. The page itself is view/page.html.

// A view is what a template is filled in with, by name: texts, and lists of views.
type view map[string]any

// render appends a template: {{name}} stands for a text of v, which is escaped, and what is between
// {{#name}} and {{/name}} is repeated for each view of a list.
func render(dst []byte, template string, v view) []byte {
	for {
		before, rest, found := strings.Cut(template, "{{")
		dst = append(dst, before...)
		if !found {
			return dst
		}
		name, rest, _ := strings.Cut(rest, "}}")
		if list, isList := strings.CutPrefix(name, "#"); isList {
			inner, behind, _ := strings.Cut(rest, "{{/"+list+"}}")
			views, _ := v[list].([]view)
			for _, each := range views {
				dst = render(dst, inner, each)
			}
			rest = behind
		} else {
			text, _ := v[name].(string)
			dst = append(dst, html.EscapeString(text)...)
		}
		template = rest
	}
}

// pageView returns what the page says.
func pageView(r *report) view {
	v := view{"title": r.Sentence, "tone": pageTone(r), "sentence": r.Sentence, "troubles": texts(r.Troubles...),
		"promise": r.Store.Promise, "commit": commitText(r), "disk": diskText(&r.Disk),
		"path": graphPath(r.Rates), "graph": graphText(r.Rates), "program": programText(r), "draw": drawViews(r),
		"stream": streamViews(r)}
	v["connections"] = fmt.Sprintf("%d now, %d at most so far, %d allowed",
		r.Connections.Open, r.Connections.Most, r.Connections.Limit)
	agencies := []view{}
	for i := range r.Agencies {
		agencies = append(agencies, agencyView(&r.Agencies[i], r.Time))
	}
	v["agencies"] = agencies
	if len(agencies) == 0 {
		v["nobody"] = texts("No agency has been here yet.")
	}
	v["warnings"], v["repairs"] = notes(r.Log.Warnings), notes(r.Log.Repairs)
	if len(r.Log.Warnings) == 0 {
		v["calm"] = texts("None since the start.")
	}
	return v
}

// texts returns a view for each text that is not empty.
func texts(all ...string) (views []view) {
	for _, text := range all {
		if text != "" {
			views = append(views, view{"text": text})
		}
	}
	return views
}

// notes returns a view for each note, the newest first.
func notes(all []note) (views []view) {
	for _, n := range slices.Backward(all) {
		views = append(views, view{"text": n.Text})
	}
	return views
}

// pageTone is the class of the page. A server that stands by is well where another takes bets.
func pageTone(r *report) string {
	standby, s := strings.HasPrefix(r.Reason, standingBy), r.Store.Stream
	switch {
	case !r.Taking && !standby, s != nil && s.isLosing():
		return "bad"
	case len(r.Troubles) > 0, standby && !s.Heard:
		return "wait"
	}
	return "good"
}

// commitText says what a commit takes.
func commitText(r *report) string {
	if r.Store.P99 == 0 {
		return "nothing was written yet"
	}
	return fmt.Sprintf("%s now; 99 of 100 under %s", shortText(r.Store.Commit), shortText(r.Store.P99))
}

// diskText says how full the disk is.
func diskText(d *diskFigures) string {
	switch {
	case !d.Known:
		return "this system does not say"
	case d.Lasts == 0:
		return sizeText(d.Free)
	}
	return fmt.Sprintf("%s; lasts %s at today's rate", sizeText(d.Free), longText(d.Lasts))
}

// programText is about the program.
func programText(r *report) string {
	return fmt.Sprintf("tp0 %s, up for %s. At the start the store recovered in %s.", r.Program.Version,
		longText(r.Time.Sub(r.Program.Started).Seconds()), shortText(r.Program.Recovery))
}

// drawViews says how the draw stands; nothing where there is none.
func drawViews(r *report) []view {
	d := &r.Draw
	v := view{}
	switch {
	case d.Done && d.Time.IsZero():
		v["text"] = "It took place before this start of the server."
	case d.Done:
		v["text"] = "It took place at " + timeText(r.Time, d.Time) + "."
	case d.Expected == 0:
		return nil
	default:
		v["text"] = fmt.Sprintf("%d of %d agencies have finished. Waited for: %s.",
			d.Finished, d.Expected, strings.Trim(fmt.Sprint(d.Awaited), "[]"))
	}
	switch {
	case d.Seal != "":
		v["winners"] = countText(uint64(d.Winners)) + " winning bets. SHA-256 of the bets file:"
		v["seal"] = d.Seal
	case d.Done:
		v["winners"] = "The bets file is being read for the winners and the seal."
	}
	return []view{v}
}

// streamViews says how things are with the log that servers share; nothing where there is none.
func streamViews(r *report) []view {
	s := r.Store.Stream
	if s == nil {
		return nil
	}
	v := view{"role": s.role(), "quorum": s.quorum(r.Time), "tone": "good", "reached": s.reached(),
		"engine": s.engine(), "conflict": s.conflict(r.Time), "unchecked": s.Unchecked}
	if !s.Quorum {
		v["tone"] = "trouble"
	}
	servers, replicas := []view{}, []view{}
	for i := range s.Fellows {
		servers = append(servers, fellowView(&s.Fellows[i], r.Time))
	}
	for i := range s.Replicas {
		e := &s.Replicas[i]
		text, tone := e.state(s.Faults)
		replicas = append(replicas, view{"server": e.Server, "version": e.Version, "state": text, "tone": tone,
			"records": countText(e.Records), "last": countText(e.Last)})
	}
	v["servers"], v["replicas"] = servers, replicas
	if len(servers) == 0 {
		v["alone"] = texts("No other server has been heard in the last minute.")
	}
	return []view{v}
}

// fellowView is the row of another server.
func fellowView(f *fellowFacts, now time.Time) view {
	v := view{"server": f.Name, "state": "stands by", "record": countText(f.Sequence),
		"heard": timeText(now, now.Add(-time.Duration(f.Ago*float64(time.Second))))}
	if f.Holding {
		v["state"], v["tone"] = "takes bets", "good"
	}
	if f.Ago >= commonPace.silence.Seconds() {
		v["state"], v["tone"] = "silent", "wait"
	}
	return v
}

// agencyView is an agency's row.
func agencyView(a *agencyFigures, now time.Time) view {
	v := view{"agency": strconv.Itoa(int(a.Agency)), "state": string(a.State), "tone": agencyTone(a.State),
		"source": a.Source, "since": sinceText(a, now), "progress": progressText(a, now),
		"stored": countText(a.Stored), "rate": countText(uint64(a.Rate + .5))}
	if !a.Key.IsZero() {
		v["key"] = "key made " + a.Key.Format("2006-01-02")
	}
	v["last"] = "never"
	if !a.Last.IsZero() {
		v["last"] = timeText(now, a.Last)
	}
	var all, most uint64
	for reason, n := range a.Refused {
		if all += n; n > most {
			most, v["why"] = n, "refused, mostly: "+reason
		}
	}
	v["refused"] = countText(all)
	return v
}

// agencyTone is the class of an agency's row.
func agencyTone(state agencyState) string {
	switch state {
	case agencyDown:
		return "lost"
	case agencyAwaited:
		return "wait"
	case agencySending, agencyDone:
		return "good"
	}
	return ""
}

// sinceText says since when the agency is as it is.
func sinceText(a *agencyFigures, now time.Time) string {
	switch {
	case a.Since.IsZero() && a.State == agencyDown:
		return "not since the server's start"
	case a.Since.IsZero():
		return ""
	case a.Connected > 1:
		return fmt.Sprintf("since %s, %s, %d connections", timeText(now, a.Since), a.From, a.Connected)
	case a.Connected == 1:
		return fmt.Sprintf("since %s, %s", timeText(now, a.Since), a.From)
	}
	return fmt.Sprintf("since %s, was %s", timeText(now, a.Since), a.From)
}

// progressText says how much of its file the server has.
func progressText(a *agencyFigures, now time.Time) string {
	text := ""
	switch {
	case a.Source != "":
		text = countText(a.Records) + " records"
	case a.Files > 1:
		text = fmt.Sprintf("%d files", a.Files)
	}
	if a.Winners > 0 {
		text += fmt.Sprintf(", %d winners", a.Winners)
	}
	if !a.Verified.IsZero() {
		text += ", verified " + timeText(now, a.Verified)
	}
	return text
}

// graphPath is the graph's outline in a field of 600 by 100, the newest second at the right.
func graphPath(rates []uint64) string {
	most := slices.Max(append([]uint64{1}, rates...))
	path := []byte(fmt.Sprintf("M%d 100", rateSpan-len(rates)))
	for i, rate := range rates {
		path = fmt.Appendf(path, "L%d %.1f", rateSpan-len(rates)+i, 100-98*float64(rate)/float64(most))
	}
	return string(fmt.Appendf(path, "L%d 100", max(rateSpan-1, rateSpan-len(rates))))
}

// graphText says what the graph shows.
func graphText(rates []uint64) string {
	if len(rates) == 0 {
		return "nothing yet"
	}
	return fmt.Sprintf("%s now, %s at most", countText(rates[len(rates)-1]), countText(slices.Max(rates)))
}
