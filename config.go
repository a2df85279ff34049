package main

// Where settings come from: flags, environment, config file and defaults, which
// of them wins, and what is said about it (-h, the config line, usage errors).
// The settings themselves are the table in settings.go.
//
// A usage error reads "place: key: text reason: takes what": where it was found
// (config.yaml:7, CLI_ID, -id), what is wrong there, and what would be right.

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

// defaultConfigFile is read where it exists and no -config names another file.
const defaultConfigFile = "config.yaml"

// A usageError is a mistake in the command line, the environment or the config
// file: main prints it in one line and exits with status 2.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// usageErrorf makes a usageError of one line, whatever its arguments hold.
func usageErrorf(format string, args ...any) error {
	oneLine := func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}
	return &usageError{strings.Map(oneLine, fmt.Sprintf(format, args...))}
}

// loadConfig takes each setting from the first of flags, environment, config
// file and default that has it. What a better source hides is checked all the
// same, so that a mistake does not lie in wait. Every error is a *usageError.
// With -h or -version nothing but the flags is looked at.
func loadConfig(args []string, lookupEnv func(string) (string, bool)) (*config, error) {
	c := &config{origins: make(map[string]string)}
	if err := c.takeFlags(args); err != nil {
		return nil, err
	}
	if c.help || c.version {
		return c, nil
	}
	if err := c.takeEnvironment(lookupEnv); err != nil {
		return nil, err
	}
	if err := c.takeFile(); err != nil {
		return nil, err
	}
	for i := range settings {
		s := &settings[i]
		if c.origins[s.key] != "" || s.noDef != "" {
			continue
		}
		if err := s.value.set(c, s.def); err != nil {
			// Only a row of the table that contradicts itself comes here.
			panic("default of " + s.key + ": " + err.Error())
		}
	}
	if err := c.complete(); err != nil {
		return nil, err
	}
	return c, nil
}

// take sets s to text, found at origin, unless a better source has set it.
func (c *config) take(s *setting, text, origin string) error {
	target := c // or a config that is thrown away: then the value is only checked
	if c.origins[s.key] != "" {
		target = new(config)
	} else {
		c.origins[s.key] = origin
	}
	if err := s.value.set(target, text); err != nil {
		return usageErrorf("%s %s %v: takes %s", place(s, origin), quoteShort(text), err, s.value.takes)
	}
	return nil
}

// place starts an error about s: where it was found, then the key.
func place(s *setting, origin string) string {
	if origin == "-"+s.key {
		return origin + ":"
	}
	return origin + ": " + s.key + ":"
}

// quoteShort quotes text for an error, cut where it would fill the screen.
func quoteShort(text string) string {
	const most = 64
	if len(text) > most {
		return strconv.Quote(strings.ToValidUTF8(text[:most], "")) + "…"
	}
	return strconv.Quote(text)
}

// A flagText is the flag of one setting: it keeps the text, and take reads it,
// so that all sources give the same errors.
type flagText struct {
	s     *setting
	given map[string]string // by key
}

// String is asked for by package flag for its own -h, which is not used.
func (f flagText) String() string        { return "" }
func (f flagText) IsBoolFlag() bool      { return f.s.value.isBool }
func (f flagText) Set(text string) error { f.given[f.s.key] = text; return nil }

// takeFlags reads the command line.
func (c *config) takeFlags(args []string) error {
	flags := flag.NewFlagSet("tp0", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // a usage error is one line, not the whole table
	given := make(map[string]string)
	for i := range settings {
		flags.Var(flagText{&settings[i], given}, settings[i].key, "")
	}
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		c.help = true
		return nil
	}
	if err != nil {
		return flagError(err)
	}
	if flags.NArg() > 0 {
		return usageErrorf("unexpected argument %s: settings are written -key=value (-h lists them)", quoteShort(flags.Arg(0)))
	}
	for i := range settings {
		s := &settings[i]
		if text, ok := given[s.key]; ok {
			if err := c.take(s, text, "-"+s.key); err != nil {
				return err
			}
		}
	}
	return nil
}

// flagError adds what to do to an error of package flag, which has no types
// for them, only fixed texts.
func flagError(err error) error {
	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		return usageErrorf("unknown flag %s (nearest: -%s; -h lists all)", quoteShort("-"+name), nearestKey(name, true))
	}
	if name, ok := strings.CutPrefix(err.Error(), "flag needs an argument: -"); ok {
		return usageErrorf("-%s: no value: takes %s", name, findSetting(name).value.takes)
	}
	return usageErrorf("%v (-h lists all flags)", err)
}

// findSetting returns the setting with this key, or nil.
func findSetting(key string) *setting {
	for i := range settings {
		if settings[i].key == key {
			return &settings[i]
		}
	}
	return nil
}

// takeEnvironment reads the environment, where an empty variable counts as none.
func (c *config) takeEnvironment(lookup func(string) (string, bool)) error {
	for i := range settings {
		s := &settings[i]
		for _, name := range s.env {
			text, _ := lookup(name)
			if text == "" {
				continue
			}
			if err := c.take(s, text, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeFile reads the config file: the one that -config names, which must be
// there, or else defaultConfigFile, which may be missing.
func (c *config) takeFile() error {
	name := c.file
	if name == "" {
		name = defaultConfigFile
	}
	text, err := readConfigFile(name)
	if c.file == "" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return usageErrorf("config: %v: takes a file that can be read", err)
	}
	entries, err := parseYAML(text)
	var bad *yamlError
	if errors.As(err, &bad) {
		return usageErrorf("%s:%d: %s", name, bad.line, bad.reason)
	}
	for i, e := range entries {
		if err := c.takeEntry(entries[i:], fmt.Sprintf("%s:%d", name, e.line)); err != nil {
			return err
		}
	}
	return nil
}

// readConfigFile reads at most one byte more than parseYAML accepts, whatever
// the file is.
func readConfigFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxYAML+1))
}

// takeEntry takes the first of entries, found at origin.
func (c *config) takeEntry(entries []yamlEntry, origin string) error {
	e := entries[0]
	s := findSetting(e.key)
	group := settingsIn(e.key)
	switch {
	case s != nil && !s.flagOnly:
		return c.takeValue(s, e, origin)
	case group == "": // neither a setting nor the start of one
		// The whole path to the first value says more about what was meant than the name of its group.
		word := e.key
		for _, inner := range entries {
			if word = inner.key; inner.kind != yamlGroup {
				break
			}
		}
		return usageErrorf("%s: unknown key %s (nearest: %s)", origin, quoteShort(e.key), nearestKey(word, false))
	case e.kind != yamlGroup && e.kind != yamlNull: // null: a group whose settings are commented out
		return usageErrorf("%s: %s: is a group, not a setting: takes %s, indented below it", origin, e.key, group)
	}
	return nil
}

// takeValue takes the entry of a known setting.
func (c *config) takeValue(s *setting, e yamlEntry, origin string) error {
	text := e.value
	switch {
	case e.kind == yamlNull:
		return usageErrorf("%s no value: takes %s", place(s, origin), s.value.takes)
	case e.kind == yamlGroup:
		return usageErrorf("%s is a setting, not a group: takes %s", place(s, origin), s.value.takes)
	case s.value.integer:
		text = e.decimal()
	}
	return c.take(s, text, origin)
}

// settingsIn lists the settings of a group of the config file as
// "server.address, server.host, server.port", empty where there is no such group.
func settingsIn(group string) string {
	var keys []string
	for _, s := range settings {
		if !s.flagOnly && strings.HasPrefix(s.key, group+".") {
			keys = append(keys, s.key)
		}
	}
	return strings.Join(keys, ", ")
}

// complete checks what no setting shows alone and fills in what depends on others.
func (c *config) complete() error {
	if c.mode == "" {
		return usageErrorf("-mode: not given: takes %s", findSetting("mode").value.takes)
	}
	if c.id == 0 {
		switch c.mode {
		case "client", "bet":
			return usageErrorf("id: not set by -id, CLI_ID or config file: -mode=%s needs it: takes %s", c.mode, findSetting("id").value.takes)
		case "sample":
			c.id = 1
		}
	}
	// Where a mode has no agency the {id} stays: such a mode opens none of these files.
	if c.id > 0 {
		r := strings.NewReplacer("{id}", strconv.Itoa(c.id))
		c.dataFile, c.dataRejects, c.dataSource = r.Replace(c.dataFile), r.Replace(c.dataRejects), r.Replace(c.dataSource)
	}
	if c.origins["data.source"] == "" {
		c.dataSource = filepath.Base(c.dataFile)
	}
	// Checked once more: the base name and the {id} came after take.
	if err := checkSource(c.dataSource); err != nil && c.mode == "client" {
		return usageErrorf("data.source: %s %v: takes %s", quoteShort(c.dataSource), err, findSetting("data.source").value.takes)
	}
	return nil
}

// describe returns the keys and values of the `action: config` line: what
// matters in this mode, with the place where it was found unless it is the
// default. The client's first pair is client_id with nothing but the number,
// which scripts read.
func (c *config) describe() []any {
	var pairs []any
	if c.mode == "client" || c.mode == "bet" {
		pairs = append(pairs, "client_id", strconv.Itoa(c.id))
	}
	for _, s := range settings {
		if !strings.Contains(" "+s.modes+" ", " "+c.mode+" ") {
			continue
		}
		value := s.value.get(c)
		if value == "" {
			value = s.noDef
		}
		if origin := c.origins[s.key]; origin != "" {
			value += " (" + origin + ")"
		}
		pairs = append(pairs, strings.ReplaceAll(s.key, ".", "_"), strings.ReplaceAll(value, "|", "¦"))
	}
	return pairs
}

// usage prints what -h prints.
func usage(w io.Writer) {
	fmt.Fprint(w, "usage: tp0 -mode=MODE [-key=value ...]\n\nmodes\n")
	for _, m := range modes {
		fmt.Fprintf(w, "  %-8s %s\n", m.name, m.help)
	}
	fmt.Fprint(w, "\nsettings, each from the first that has it: flag (-key=value), environment, config file, default\n")
	fmt.Fprintf(w, "  %-15s %-29s %s\n", "key", "environment", "default")
	for _, s := range settings {
		env, def := strings.Join(s.env, ", "), s.def+s.noDef
		if s.flagOnly {
			env = "(flag only)"
		}
		fmt.Fprintf(w, "  %-15s %-29s %s\n", s.key, env, def)
		fmt.Fprintf(w, "      %s\n      takes %s\n", s.help, s.value.takes)
	}
}
