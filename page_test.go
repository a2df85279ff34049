//go:build !nohttp && !notls

package main

import (
	"bytes"
	"encoding/json"
	"html"
	"image"
	"image/color"
	imagedraw "image/draw"
	"image/png"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// templateNames returns the names that the page asks for, by the lists that they stand in: "draw",
// a list, "draw.text", a text in it.
func templateNames(text, in string) map[string]bool {
	names := map[string]bool{}
	for tag := regexp.MustCompile(`\{\{(#?)(\w+)\}\}`); ; {
		m := tag.FindStringSubmatchIndex(text)
		if m == nil {
			return names
		}
		name := text[m[4]:m[5]]
		names[in+name] = true
		text = text[m[1]:]
		if m[2] < m[3] { // a list
			inner, behind, _ := strings.Cut(text, "{{/"+name+"}}")
			maps.Copy(names, templateNames(inner, in+name+"."))
			text = behind
		}
	}
}

// viewNames adds the names that v fills in, as templateNames has them.
func viewNames(names map[string]bool, v view, in string) {
	for name, value := range v {
		names[in+name] = true
		views, _ := value.([]view)
		for _, each := range views {
			viewNames(names, each, in+name+".")
		}
	}
}

// TestPageNames has each name of the page filled in, and each figure for the page shown, over
// all scenes.
func TestPageNames(t *testing.T) {
	if len(page) > 40<<10 {
		t.Errorf("the page has %d bytes, want 40 KB at most", len(page))
	}
	names, filled := templateNames(page, ""), map[string]bool{}
	for _, scene := range scenes {
		f := newFakeOffice()
		f.serve(t)
		scene.play(f)
		v := pageView(f.page.watch.report(time.Now()))
		viewNames(filled, v, "")
		text := string(render(nil, page, v))
		if strings.Contains(text, "{{") || strings.Contains(text, "}}") {
			t.Errorf("%s: something is not filled in", scene.name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(filled)) {
		if !names[name] {
			t.Errorf("the page has no place for %q", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		// There are keys with tls.known only, and somebody always where agencies are expected.
		if !filled[name] && name != "agencies.key" && !strings.HasPrefix(name, "nobody") {
			t.Errorf("nothing fills in %q", name)
		}
	}
}

// TestRender has what a template may be.
func TestRender(t *testing.T) {
	v := view{"a": `<b x="1">&'`, "list": []view{{"a": "1"}, {"a": "2"}}, "none": []view{}}
	got := string(render(nil, "{{a}}-{{#list}}[{{a}}]{{/list}}{{#none}}x{{/none}}{{unknown}}.", v))
	if want := html.EscapeString(`<b x="1">&'`) + "-[1][2]."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestTexts has numbers, sizes and times as people read them.
func TestTexts(t *testing.T) {
	now := time.Date(2026, 11, 27, 22, 0, 0, 0, time.Local)
	for _, tt := range []struct{ got, want string }{
		{countText(0), "0"}, {countText(999), "999"}, {countText(1000), "1,000"}, {countText(12345678), "12,345,678"},
		{sizeText(12e6), "12 MB"}, {sizeText(9_999e6), "9,999 MB"}, {sizeText(83e9), "83 GB"},
		{shortText(0.00002), "0s"}, {shortText(0.00123), "1.2ms"}, {shortText(0.15), "150ms"}, {shortText(2.5), "2.5s"},
		{longText(45), "1 min"}, {longText(600), "10 min"}, {longText(6 * 3600), "6 h"},
		{longText(80 * 3600), "3 days"},
		{timeText(now, now.Add(-time.Hour)), "21:00:00"}, {timeText(now, now.Add(-23*time.Hour)), "2026-11-26 23:00"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

// TestStatusJSON has the figures of the page as JSON.
func TestStatusJSON(t *testing.T) {
	for _, scene := range scenes {
		f := newFakeOffice()
		at := f.serve(t)
		scene.play(f)
		code, text, head := get(t, "http://"+at+"/status.json")
		var r report
		if err := json.Unmarshal([]byte(text), &r); err != nil || code != 200 ||
			head.Get("Content-Type") != "application/json" {
			t.Fatalf("%s: got %d, %q: %v", scene.name, code, head.Get("Content-Type"), err)
		}
		_, page, _ := get(t, "http://"+at+"/")
		if !strings.Contains(page, "<h1>"+html.EscapeString(r.Sentence)+"</h1>") {
			t.Errorf("%s: the page does not say %q", scene.name, r.Sentence)
		}
		for _, a := range r.Agencies {
			if !strings.Contains(page, ">"+countText(a.Stored)+"<") || !strings.Contains(page, string(a.State)) {
				t.Errorf("%s: the page does not have %+v", scene.name, a)
			}
		}
	}
}

// browser runs chromium on a page, and returns what it prints.
func browser(t *testing.T, url string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("SKIPPED: the page in a browser: there is no chromium (Debian's package)")
	}
	args = append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--user-data-dir=" +
		t.TempDir()}, args...)
	var out, errs bytes.Buffer
	cmd := exec.Command(path, append(args, url)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, errs.String())
	}
	return out.String()
}

// TestPageInBrowser opens the page in a real browser, which keeps to the
// Content-Security-Policy: its style must count, its script must run, and find out by itself
// what has changed and that the server is gone.
func TestPageInBrowser(t *testing.T) {
	f := newFakeOffice()
	var asked atomic.Int32
	f.before = func() {
		switch asked.Add(1) {
		case 2:
			f.fake.mu.Lock()
			defer f.fake.mu.Unlock()
			f.fake.said.Bets = 123
			f.share() // the script puts in a section that was not there
		case 3:
			go f.page.http.Close()
		}
	}
	at := f.serve(t)
	f.evening()
	dom := browser(t, "http://"+at+"/", "--virtual-time-budget=20000", "--dump-dom")
	for _, want := range []string{
		"123 bets stored", "NO ANSWER since", `<body class="stale">`, `<caption>Agencies</caption>`, `scope="row">4<`,
		"<h2>The stream</h2>", "<td>office-b:12345</td><td><b>takes bets</b></td>",
	} {
		if !strings.Contains(dom, want) {
			t.Errorf("the browser's page has no %q:\n%s", want, dom)
		}
	}
}

// TestPageWithoutScripts has the page say all without its script, and refresh itself.
func TestPageWithoutScripts(t *testing.T) {
	f := newFakeOffice()
	at := f.serve(t)
	f.evening()
	_, text, _ := get(t, "http://"+at+"/")
	if !strings.Contains(text, `<noscript><meta http-equiv="refresh" content="3"></noscript>`) {
		t.Error("the page does not refresh itself without scripts")
	}
	for _, bad := range []string{` style="`, ` onclick`, "http://", "https://", "@import", "url("} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
}

// TestScreenshots has each scene drawn at two widths, light and dark, and with large type, into
// the folder SCREENSHOTS.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		t.Skip("SCREENSHOTS=DIR draws each scene")
	}
	for _, scene := range scenes {
		f := newFakeOffice()
		at := f.serve(t)
		scene.play(f)
		for name, args := range map[string][]string{
			"wide": {"--window-size=1280,800"}, "wide-dark": {"--window-size=1280,800",
				"--blink-settings=preferredColorScheme=0"},
			"narrow": {"--window-size=400,1400"}, "narrow-dark": {"--window-size=400,1400",
				"--blink-settings=preferredColorScheme=0"},
			"zoomed": {"--window-size=640,1600", "--force-device-scale-factor=2"},
		} {
			browser(t, "http://"+at+"/", append(args,
				"--screenshot="+filepath.Join(dir, scene.name+"-"+name+".png"))...)
		}
	}
}

// TestScreenshot draws the page for the README into the file SCREENSHOT, which is small: it has
// as many colours as a palette.
func TestScreenshot(t *testing.T) {
	file := os.Getenv("SCREENSHOT")
	if file == "" {
		t.Skip("SCREENSHOT=FILE draws the page for the README (make screenshot)")
	}
	f := newFakeOffice()
	at := f.serve(t)
	scenes[3].play(f)
	raw := filepath.Join(t.TempDir(), "page.png")
	browser(t, "http://"+at+"/", "--window-size=1280,800", "--screenshot="+raw)
	data, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	full, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	often := map[color.Color]int{}
	for y := range full.Bounds().Dy() {
		for x := range full.Bounds().Dx() {
			often[full.At(x, y)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(often), func(a, b color.Color) int { return often[b] - often[a] })
	small := image.NewPaletted(full.Bounds(), colours[:min(256, len(colours))])
	imagedraw.Draw(small, small.Bounds(), full, image.Point{}, imagedraw.Src)
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, small); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 150<<10 {
		t.Errorf("got %d bytes, want 150 KB at most", out.Len())
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
