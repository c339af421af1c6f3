// Command bench measures what keymount costs a node and a Vault: the built program,
// with the driver's calls on its socket, before a real Vault behind a proxy that
// counts and adds to each request what a network would.
//
//	cd e2e && go run ./bench            # tables
//	cd e2e && go run ./bench -o json    # the same for programs
//	cd e2e && go run ./bench -beside "PROGRAM -endpoint {socket} -vault-addr {vault}"
//
// In each scenario all pods of a node start, some at a time; then the driver mounts
// them again and again, as it does for ever; one secret is rotated; a day's worth of
// mounts passes; as many pods again come and go ten times over; and then there is quiet. The counts of
// requests are exact and part of the tests; times are those of this machine, which
// also runs Vault, the proxy and the driver's part.
//
// With -beside another provider and keymount start in turns before that Vault, and go
// through the cold storm and the republishes; the table has both, and how many times as
// much the one takes of the other.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options are what is measured.
type options struct {
	Pods        int           `json:"pods"`
	Objects     int           `json:"objects"`         // of each pod
	Accounts    int           `json:"accounts"`        // of scenario b; in a each pod has its own
	Bytes       int           `json:"bytes"`           // of each value
	AtOnce      int           `json:"atOnce"`          // mounts
	Delay       time.Duration `json:"delay"`           // of each request
	Refresh     time.Duration `json:"refresh"`         // of keymount.yaml
	Rounds      int           `json:"rounds"`          // of republishes within refresh
	Republishes int           `json:"republishes"`     // mounts after that
	Churn       int           `json:"churn"`           // pods that come and go
	Settle      time.Duration `json:"settle"`          // after that
	Audit       string        `json:"audit,omitempty"` // of keymount.yaml

	Beside  string  `json:"beside,omitempty"` // another program, with its arguments
	Dialect dialect `json:"dialect,omitempty"`
	Turns   int     `json:"turns,omitempty"`
}

func main() { os.Exit(run()) }

func run() int {
	o, output := parse(os.Args[1:])
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := bench(ctx, o, os.Stderr)
	if err == nil {
		err = write(os.Stdout, r, output)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// parse reads the command line.
func parse(arguments []string) (o options, output string) {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.IntVar(&o.Pods, "pods", 110, "pods of the node")
	flags.IntVar(&o.Objects, "objects", 10, "secrets of each pod")
	flags.IntVar(&o.Accounts, "accounts", 10, "service accounts of scenario b; in a each pod has its own")
	flags.IntVar(&o.Bytes, "bytes", 4096, "size of each value")
	flags.IntVar(&o.AtOnce, "at-once", 20, "mounts at a time")
	flags.DurationVar(&o.Delay, "delay", 5*time.Millisecond, "added to each request")
	flags.DurationVar(&o.Refresh, "refresh", time.Minute, "how long a secret counts before it is read again")
	flags.IntVar(&o.Rounds, "rounds", 10, "times that all pods are mounted again within refresh")
	flags.IntVar(&o.Republishes, "republishes", 10_000, "mounts of running pods after that, for what stays in memory")
	flags.IntVar(&o.Churn, "churn", 1100, "pods that come and go after that")
	flags.DurationVar(&o.Settle, "settle", 65*time.Second, "time after that in which nothing is mounted; keymount returns free memory every minute")
	flags.StringVar(&o.Audit, "audit", "", "audit of keymount.yaml, such as '{enabled: false}' or '{file: audit.jsonl}'; by default the trail goes to standard output")
	flags.StringVar(&o.Beside, "beside", "", besideHelp)
	flags.StringVar((*string)(&o.Dialect), "beside-dialect", string(dialectVault), "how classes for the other program are spelt: vault or keymount")
	flags.IntVar(&o.Turns, "beside-turns", 3, "times that each program starts anew and goes through the storms; printed are medians")
	flags.StringVar(&output, "o", "text", "text or json")
	_ = flags.Parse(arguments) // it exits at an error
	return o, output
}

// bench runs all scenarios, one after the other.
func bench(ctx context.Context, o options, progress io.Writer) (r report, err error) {
	sides, err := o.others()
	if err != nil {
		return report{}, err
	}
	folder, err := os.MkdirTemp("", "kb-") // a socket's path is short
	if err != nil {
		return report{}, fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	program, err := build(ctx, folder)
	if err != nil {
		return report{}, err
	}
	c, err := newCluster()
	if err != nil {
		return report{}, err
	}
	server, err := startVault(ctx, progress)
	if err != nil {
		return report{}, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	if err := server.fill(ctx, c, o); err != nil {
		return report{}, err
	}
	r.Options = o
	for _, s := range o.scenarios(append([]side{ownSide(program, o.environment())}, sides...)) {
		_, _ = fmt.Fprintf(progress, "scenario %s: %d pods of %d service accounts\n", s.title(), o.Pods, s.Accounts)
		if err := s.run(ctx, stage{o, c, server, folder}); err != nil {
			return report{}, fmt.Errorf("scenario %s: %w", s.title(), err)
		}
		r.Scenarios = append(r.Scenarios, s)
	}
	return r, nil
}

// scenarios are those of keymount alone, or of two programs in turns.
func (o options) scenarios(sides []side) (list []scenario) {
	turns := 1
	if o.Beside != "" {
		turns = o.Turns
	}
	for _, s := range []scenario{{Name: "a", Accounts: o.Pods}, {Name: "b", Accounts: min(o.Accounts, o.Pods)}} {
		list = append(list, s.taken(turns, sides)...)
	}
	return list
}

func write(w io.Writer, r report, output string) error {
	switch output {
	case "text":
		return r.print(w)
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(r); err != nil {
			return fmt.Errorf("print the result: %w", err)
		}
		return nil
	}
	return fmt.Errorf("-o is %q; it is text or json", output)
}
