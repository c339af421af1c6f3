package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// parse reads the flags and wants at least as many arguments behind them as have
// names; others may follow when the last name ends in dots.
func parse(flags *flag.FlagSet, args []string, names ...string) error {
	flags.SetOutput(io.Discard)
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w, to this stand-in for the Vault CLI", err)
	}
	isOpen := len(names) > 0 && strings.HasSuffix(names[len(names)-1], "...")
	if flags.NArg() < len(names) || flags.NArg() > len(names) && !isOpen {
		return fmt.Errorf("wants %s, got %q", strings.Join(names, " "), flags.Args())
	}
	return nil
}

func newFlags() *flag.FlagSet { return flag.NewFlagSet("", flag.ContinueOnError) }

func (c *cli) authEnable(ctx context.Context, args []string) error {
	flags := newFlags()
	path := flags.String("path", "", "")
	if err := parse(flags, args, "TYPE"); err != nil {
		return err
	}
	return c.enable(ctx, "sys/auth/", flags.Arg(0), *path, map[string]any{})
}

func (c *cli) secretsEnable(ctx context.Context, args []string) error {
	flags := newFlags()
	path, version := flags.String("path", "", ""), flags.String("version", "", "")
	longest := flags.String("max-lease-ttl", "", "")
	if err := parse(flags, args, "TYPE"); err != nil {
		return err
	}
	body := map[string]any{}
	if *version != "" {
		body["options"] = map[string]string{"version": *version}
	}
	if *longest != "" {
		body["config"] = map[string]string{"max_lease_ttl": *longest}
	}
	return c.enable(ctx, "sys/mounts/", flags.Arg(0), *path, body)
}

// enable mounts under the name of the type unless a path is given.
func (c *cli) enable(ctx context.Context, below, kind, path string, body map[string]any) error {
	if path == "" {
		path = kind
	}
	body["type"] = kind
	if _, err := c.do(ctx, http.MethodPost, below+path, body); err != nil {
		return err
	}
	return c.say("Success! Enabled %s at: %s/", kind, strings.Trim(path, "/"))
}

func (c *cli) authList(ctx context.Context, args []string) error {
	return c.mounts(ctx, "sys/auth", args)
}

func (c *cli) secretsList(ctx context.Context, args []string) error {
	return c.mounts(ctx, "sys/mounts", args)
}

func (c *cli) mounts(ctx context.Context, path string, args []string) error {
	if err := parse(newFlags(), args); err != nil {
		return err
	}
	mounts, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	rows := [][2]string{{"Path", "Type"}, {"----", "----"}}
	for _, name := range slices.Sorted(maps.Keys(mounts)) {
		mount, _ := mounts[name].(map[string]any)
		rows = append(rows, [2]string{name, fmt.Sprint(mount["type"])})
	}
	return c.table(rows)
}

func (c *cli) policyWrite(ctx context.Context, args []string) error {
	flags := newFlags()
	if err := parse(flags, args, "NAME", "FILE"); err != nil {
		return err
	}
	value := "@" + flags.Arg(1)
	if flags.Arg(1) == "-" {
		value = "-"
	}
	text, err := c.value(value)
	if err != nil {
		return err
	}
	if _, err := c.do(ctx, http.MethodPut, "sys/policies/acl/"+flags.Arg(0), map[string]any{"policy": text}); err != nil {
		return err
	}
	return c.say("Success! Uploaded policy: %s", flags.Arg(0))
}

// kvPut finds the version of the engine as the real one does.
func (c *cli) kvPut(ctx context.Context, args []string) error {
	flags := newFlags()
	if err := parse(flags, args, "PATH", "KEY=VALUE..."); err != nil {
		return err
	}
	path := strings.Trim(flags.Arg(0), "/")
	fields, err := c.fields(flags.Args()[1:])
	if err != nil {
		return err
	}
	mount, err := c.do(ctx, http.MethodGet, "sys/internal/ui/mounts/"+path, nil)
	if err != nil {
		return err
	}
	root, _ := mount["path"].(string)
	options, _ := mount["options"].(map[string]any)
	if options["version"] == "2" {
		path, fields = root+"data/"+strings.TrimPrefix(path, root), map[string]any{"data": fields}
	}
	return c.put(ctx, path, fields)
}

func (c *cli) write(ctx context.Context, args []string) error {
	flags := newFlags()
	force := flags.Bool("f", false, "")
	if err := parse(flags, args, "PATH", "KEY=VALUE..."); err != nil && (!*force || flags.NArg() != 1) {
		return err
	}
	fields, err := c.fields(flags.Args()[1:])
	if err != nil {
		return err
	}
	return c.put(ctx, flags.Arg(0), fields)
}

func (c *cli) put(ctx context.Context, path string, fields map[string]any) error {
	data, err := c.do(ctx, http.MethodPut, path, fields)
	switch {
	case err != nil:
		return err
	case len(data) == 0:
		return c.say("Success! Data written to: %s", path)
	}
	return c.data(data)
}

func (c *cli) read(ctx context.Context, args []string) error {
	flags := newFlags()
	if err := parse(flags, args, "PATH"); err != nil {
		return err
	}
	data, err := c.do(ctx, http.MethodGet, flags.Arg(0), nil)
	if err != nil {
		return err
	}
	return c.data(data)
}

func (c *cli) list(ctx context.Context, args []string) error {
	flags := newFlags()
	if err := parse(flags, args, "PATH"); err != nil {
		return err
	}
	data, err := c.do(ctx, "LIST", flags.Arg(0), nil)
	if err != nil {
		return err
	}
	rows := [][2]string{{"Keys", ""}, {"----", ""}}
	keys, _ := data["keys"].([]any)
	for _, key := range keys {
		rows = append(rows, [2]string{fmt.Sprint(key), ""})
	}
	return c.table(rows)
}

// fields are the body of a write.
func (c *cli) fields(args []string) (map[string]any, error) {
	fields := map[string]any{}
	for _, arg := range args {
		name, text, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is not of the form KEY=VALUE", arg)
		}
		if _, twice := fields[name]; twice {
			return nil, fmt.Errorf("%s is there twice, which this stand-in for the Vault CLI does not know", name)
		}
		value, err := c.value(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		fields[name] = value
	}
	return fields, nil
}

// value is a text, or the content of @FILE, or standard input for a dash.
func (c *cli) value(text string) (string, error) {
	var data []byte
	var err error
	switch name, isFile := strings.CutPrefix(text, "@"); {
	case isFile:
		data, err = os.ReadFile(name)
	case text == "-":
		data, err = io.ReadAll(c.stdin)
	default:
		return text, nil
	}
	if err != nil {
		return "", fmt.Errorf("read a value: %w", err)
	}
	return string(data), nil
}

func (c *cli) data(data map[string]any) error {
	rows := [][2]string{{"Key", "Value"}, {"---", "-----"}}
	for _, name := range slices.Sorted(maps.Keys(data)) {
		rows = append(rows, [2]string{name, fmt.Sprint(data[name])})
	}
	return c.table(rows)
}

func (c *cli) table(rows [][2]string) error {
	w := tabwriter.NewWriter(c.stdout, 0, 0, 4, ' ', tabwriter.StripEscape)
	var failed error
	for _, row := range rows {
		_, err := fmt.Fprintln(w, strings.TrimRight(row[0]+"\t"+row[1], "\t"))
		failed = errors.Join(failed, err)
	}
	if err := errors.Join(failed, w.Flush()); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

func (c *cli) say(format string, args ...any) error {
	if _, err := fmt.Fprintf(c.stdout, format+"\n", args...); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
