// Command fleet simulates a day of many nodes, and prints what they ask of a store: keymount,
// and vault-csi-provider beside it.
//
//	cd e2e && go run ./fleet                                # 10 to 10,000 nodes
//	cd e2e && go run ./fleet -pods 30 -secrets 4 -nodes 500
//	cd e2e && go run ./fleet -o json                        # the same for programs
//
// All nodes start at once. At noon every pod is replaced (-rollout), at six in the evening
// the store is away for a while (-outage), and all day long secrets change (-rotations).
// It is a model, so that a day takes moments: keymount.go has the rules of keymount, and a
// test holds them against keymount's own packages, which live through the same day.
// peer.go has those of vault-csi-provider 1.7, as they were measured.
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
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options say what is simulated.
type options struct {
	Nodes      numbers       `json:"nodes"`
	Pods       int           `json:"pods"`     // of a node
	Accounts   numbers       `json:"accounts"` // service accounts of a node
	Secrets    int           `json:"secrets"`  // of a pod
	Shared     int           `json:"shared"`   // of them, the same for all pods of an account; negative is all
	Kubelet    span          `json:"kubelet"`  // between two calls for a volume
	Refresh    time.Duration `json:"refresh"`
	RefreshMax time.Duration `json:"refreshMax"`
	Stale      time.Duration `json:"stale"`
	TokenTTL   time.Duration `json:"tokenTTL"`  // of the store's logins
	Batch      bool          `json:"batch"`     // logins cannot be renewed
	Rotations  float64       `json:"rotations"` // secrets of a node that change in an hour
	Rollout    time.Duration `json:"rollout"`   // in which all pods are replaced
	Outage     time.Duration `json:"outage"`    // of the store
	Sample     int           `json:"sample"`    // nodes that are simulated at most
	Peer       bool          `json:"peer"`      // simulates vault-csi-provider, too
}

func main() { os.Exit(run()) }

func run() int {
	o, output := parse(os.Args[1:])
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := errors.Join(o.check(), oneOf(output))
	if err == nil {
		err = simulate(ctx, o, output)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		return 1
	}
	return 0
}

// parse reads the command line.
func parse(arguments []string) (o options, output string) {
	o.Nodes, o.Kubelet = numbers{10, 100, 1000, 10_000}, span{60 * time.Second, 90 * time.Second}
	flags := flag.NewFlagSet("fleet", flag.ExitOnError)
	flags.Var(&o.Nodes, "nodes", "`numbers` of nodes, separated by commas")
	flags.IntVar(&o.Pods, "pods", 110, "pods of a node")
	flags.Var(&o.Accounts, "accounts", "`numbers` of service accounts of a node (default: as many as pods, and one for every 11)")
	flags.IntVar(&o.Secrets, "secrets", 10, "secrets of a pod")
	flags.IntVar(&o.Shared, "shared", -1, "secrets of a pod that are the same for all pods of its account; -1 is all")
	flags.Var(&o.Kubelet, "kubelet", "`span` between two calls of the kubelet for a volume")
	flags.DurationVar(&o.Refresh, "refresh", time.Minute, "keymount's refresh")
	flags.DurationVar(&o.RefreshMax, "refresh-max", 5*time.Minute, "keymount's refreshMax")
	flags.DurationVar(&o.Stale, "stale", time.Hour, "keymount's stale")
	flags.DurationVar(&o.TokenTTL, "token-ttl", time.Hour, "life of the store's logins")
	flags.BoolVar(&o.Batch, "batch", false, "logins are batch tokens, which cannot be renewed")
	flags.Float64Var(&o.Rotations, "rotations", 1, "secrets of a node that change in an hour")
	flags.DurationVar(&o.Rollout, "rollout", 10*time.Minute, "time in which all pods are replaced once; 0 is no rollout")
	flags.DurationVar(&o.Outage, "outage", 10*time.Minute, "time without an answer of the store; 0 is no outage")
	flags.IntVar(&o.Sample, "sample", 10, "nodes that are simulated at most; the others count like them")
	flags.BoolVar(&o.Peer, "peer", true, "simulate vault-csi-provider as well")
	flags.StringVar(&output, "o", "text", "text or json")
	_ = flags.Parse(arguments) // it ends the process itself
	if o.Accounts == nil {
		const crowd = 11 // as e2e/bench has them
		o.Accounts = numbers{o.Pods, max(1, o.Pods/crowd)}
	}
	return o, output
}

func simulate(ctx context.Context, o options, output string) error {
	r, err := day(ctx, o, os.Stderr)
	if err != nil {
		return err
	}
	if output == "json" {
		return r.encode(os.Stdout)
	}
	return r.print(os.Stdout)
}

func oneOf(output string) error {
	if output != "text" && output != "json" {
		return fmt.Errorf("-o is %q; it is text or json", output)
	}
	return nil
}

// check finds all mistakes of the options.
func (o options) check() error {
	var mistakes []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			mistakes = append(mistakes, fmt.Errorf(format, args...))
		}
	}
	for _, n := range o.Nodes {
		wrong(n < 1, "-nodes %d: want at least 1", n)
	}
	for _, n := range o.Accounts {
		wrong(n < 1 || n > o.Pods, "-accounts %d: want 1 to %d, the number of pods", n, o.Pods)
	}
	wrong(o.Pods < 1 || o.Secrets < 1 || o.Sample < 1, "-pods, -secrets and -sample are at least 1")
	wrong(o.Shared > o.Secrets, "-shared %d: a pod has %d secrets", o.Shared, o.Secrets)
	wrong(o.Kubelet.Least < time.Second, "-kubelet %s: want at least 1s", o.Kubelet)
	wrong(o.Refresh < 0 || o.RefreshMax < o.Refresh, "-refresh-max %s is less than -refresh %s", o.RefreshMax, o.Refresh)
	wrong(o.Stale < 0 || o.Rotations < 0, "-stale and -rotations are at least 0")
	wrong(o.TokenTTL < time.Minute, "-token-ttl %s: want at least 1m", o.TokenTTL)
	const most = 4 * time.Hour // the events of the day are six hours apart
	wrong(o.Rollout < 0 || o.Rollout > most, "-rollout %s: want 0 to %s", o.Rollout, most)
	wrong(o.Outage < 0 || o.Outage > most || o.Outage%time.Minute != 0, "-outage %s: want whole minutes, 0 to %s", o.Outage, most)
	return errors.Join(mistakes...)
}

// numbers is a list of them, as a flag.
type numbers []int

func (n *numbers) String() string {
	texts := make([]string, 0, len(*n))
	for _, one := range *n {
		texts = append(texts, strconv.Itoa(one))
	}
	return strings.Join(texts, ",")
}

// Set implements [flag.Value].
func (n *numbers) Set(text string) error {
	*n = nil
	for one := range strings.SplitSeq(text, ",") {
		number, err := strconv.Atoi(one)
		if err != nil {
			return fmt.Errorf("%q is no number", one)
		}
		*n = append(*n, number)
	}
	return nil
}

// span is from one duration to another, as a flag: 60s-90s.
type span struct {
	Least time.Duration `json:"least"`
	Most  time.Duration `json:"most"`
}

func (s span) String() string { return short(s.Least) + "-" + short(s.Most) }

// Set implements [flag.Value].
func (s *span) Set(text string) error {
	least, most, ok := strings.Cut(text, "-")
	if !ok {
		most = least
	}
	var errs [2]error
	s.Least, errs[0] = time.ParseDuration(least)
	s.Most, errs[1] = time.ParseDuration(most)
	if err := errors.Join(errs[:]...); err != nil || s.Most < s.Least {
		return fmt.Errorf("%q is no span; 60s-90s is one", text)
	}
	return nil
}

func (r report) encode(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(r); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}
