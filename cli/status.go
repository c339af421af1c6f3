package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/node"
	"github.com/keymount/keymount/store/all"
)

const (
	// statusTimeout ends the question to one node.
	statusTimeout = 10 * time.Second
	// mostMemory is how many namespaces are listed by what they take.
	mostMemory = 5
	// maxStatus bounds an answer, in bytes: that of a node with thousands of volumes.
	maxStatus = 64 << 20
)

// statusFlags are those of the command status.
type statusFlags struct {
	kubectl

	local, everything       bool
	file, namespace, nodeOf string
}

// nodeStatus is what one node said, or why it did not.
type nodeStatus struct {
	Node   string       `json:"node"`
	Pod    string       `json:"pod,omitempty"`
	Status *node.Status `json:"status,omitempty"`
	Error  string       `json:"error,omitempty"`
}

// statuses is the result of the command status.
type statuses struct {
	Nodes []nodeStatus `json:"nodes"`

	everything bool
}

func newStatus() *cobra.Command {
	var f statusFlags
	command := &cobra.Command{
		Use:   "status",
		Short: "Tell what is broken on the nodes now, and how old everything is",
		Long: `Tell of each node: which stores answer, and since when not; logins, leases and the next end of
one; mounts that are being answered and what they wait for; volumes that fail or that have the last
known values; and which namespaces take most memory. No secret is shown.

It runs kubectl exec in keymount's pods, with your rights. The right to exec there is equal to the
right to read every secret of the node: it is the operators', never the tenants'.

With --local it asks the keymount of this machine, at statusSocket of its keymount.yaml. The exit
code is 1 when a node does not say.`,
		Example: `  keymount status -n keymount
  keymount status --node worker-7 --all
  keymount status -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			result, err := f.ask(cmd.Context())
			if err != nil {
				return err
			}
			if err := printResult(cmd, result, func(w io.Writer) { result.print(w, styleOf(cmd.OutOrStdout())) }); err != nil {
				return err
			}
			return result.failures(cmd)
		},
	}
	f.add(command)
	return command
}

func (f *statusFlags) add(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVarP(&f.namespace, "namespace", "n", "keymount", "keymount's own namespace")
	flags.StringVar(&f.nodeOf, "node", "", "one node (default: all)")
	flags.BoolVarP(&f.everything, "all", "A", false, "list the volumes that are fresh as well")
	flags.BoolVar(&f.local, "local", false, "ask the keymount of this machine")
	flags.StringVarP(&f.file, "config", "c", defaultConfigFile, "with --local: the operator's file, for its statusSocket")
	completeFile(command, "config", yamlFiles()...)
	f.completes(command, "namespace", f.namespaces)
	f.completes(command, "node", f.nodes)
	f.kubectl.add(command, "")
}

func (f *statusFlags) ask(ctx context.Context) (statuses, error) {
	result := statuses{everything: f.everything}
	if f.local {
		s, err := f.askHere(ctx)
		if err != nil {
			return result, err
		}
		result.Nodes = []nodeStatus{{Node: s.Node, Status: s}}
		return result, nil
	}
	pods, err := f.providers(ctx, f.namespace, f.nodeOf)
	if err != nil {
		return result, err
	}
	for _, pod := range pods {
		one := nodeStatus{Node: pod.node, Pod: pod.name}
		if one.Status, err = f.askPod(ctx, pod); err != nil {
			one.Error = err.Error()
		}
		result.Nodes = append(result.Nodes, one)
	}
	return result, nil
}

// nodes are those with a pod of keymount.
func (f *statusFlags) nodes(ctx context.Context) ([]string, error) {
	pods, err := f.providers(ctx, f.namespace, "")
	names := make([]string, len(pods))
	for i, pod := range pods {
		names[i] = pod.node
	}
	return names, err
}

func (f *statusFlags) askHere(ctx context.Context) (*node.Status, error) {
	c, err := config.Load(f.file, all.All())
	if err != nil {
		return nil, err
	}
	if c.StatusSocket == "" {
		return nil, fmt.Errorf("%s has no statusSocket, at which keymount would say; add one, such as statusSocket: /run/status/keymount.sock", f.file)
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", c.StatusSocket)
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://keymount"+node.StatusPath, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for the status: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("statusSocket %s: %w; does 'keymount serve' run here?", c.StatusSocket, errors.Unwrap(err))
	}
	defer func() { _ = response.Body.Close() }()
	var s node.Status
	if err := json.NewDecoder(io.LimitReader(response.Body, maxStatus)).Decode(&s); err != nil {
		return nil, fmt.Errorf("statusSocket %s: %w", c.StatusSocket, err)
	}
	return &s, nil
}

func (f *statusFlags) askPod(ctx context.Context, pod providerPod) (*node.Status, error) {
	if pod.phase != "Running" {
		return nil, fmt.Errorf("pod %s is %s", pod.name, pod.phase)
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	data, err := f.run(ctx, "exec", pod.name, "--namespace", f.namespace, "--container", "keymount", "--", "/keymount", "status", "--local", "-o", "json")
	if err != nil {
		return nil, err
	}
	var said statuses
	if err := json.Unmarshal(data, &said); err != nil || len(said.Nodes) != 1 || said.Nodes[0].Status == nil {
		return nil, fmt.Errorf("pod %s said nothing that this keymount understands; is it of the same version?", pod.name)
	}
	return said.Nodes[0].Status, nil
}

// failures are the nodes that did not say.
func (s statuses) failures(cmd *cobra.Command) error {
	var failures []error
	for _, n := range s.Nodes {
		if n.Error != "" {
			failures = append(failures, fmt.Errorf("node %s: %s", n.Node, n.Error)) //nolint:err113 // it is told once
		}
	}
	if failures != nil && isJSON(cmd) { // the result has them
		return exitError{code: exitFailed}
	}
	return errors.Join(failures...)
}

func (s statuses) print(w io.Writer, paint style) {
	first := true
	for _, n := range s.Nodes {
		if n.Status == nil {
			continue
		}
		if !first {
			_, _ = fmt.Fprintln(w)
		}
		first = false
		printed{w, paint, n.Status, s.everything}.all()
	}
}

// printed is the status of one node, as text.
type printed struct {
	io.Writer

	paint      style
	status     *node.Status
	everything bool
}

func (p printed) say(format string, args ...any) { _, _ = fmt.Fprintf(p, format, args...) }

func (p printed) all() {
	s := p.status
	ready := p.paint.green("ready")
	if !s.Ready {
		ready = p.paint.red("not ready")
	}
	p.say("%s   keymount %s for %s, %s\n\n", p.paint.bold(shown(cmp.Or(s.Node, "this node"))), s.Version, p.ago(s.Started), ready)
	p.stores()
	p.inFlight()
	p.volumes()
	p.memory()
}

// ago is how long ago something was, by the node's own clock; a dash for never.
func (p printed) ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return length(p.status.Now.Sub(t))
}

// in is how long it is until something ends.
func (p printed) in(t time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case t.Before(p.status.Now):
		return "ended"
	}
	return length(t.Sub(p.status.Now))
}

// length is a duration in its two largest units.
func length(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

func (p printed) stores() {
	rows := [][]string{{"STORE", "STATE", "FOR", "LAST GOOD", "LOGINS", "LEASES", "WAITING", "NEXT END"}}
	for _, s := range p.status.Stores {
		rows = append(rows, []string{
			s.Name, s.State, p.ago(s.Since), p.ago(s.Succeeded), strconv.Itoa(s.Logins), strconv.Itoa(s.Leases), strconv.Itoa(s.Waiting), p.nextEnd(s),
		})
	}
	printTable(p, rows)
	for _, s := range p.status.Stores {
		if s.Cause != "" {
			p.why(p.paint.red("store "+s.Name), s.Cause)
		}
	}
}

// nextEnd is the first of the ends of a store, with its kind.
func (p printed) nextEnd(s node.StoreStatus) string {
	ends := []struct {
		of string
		at time.Time
	}{{"login", s.LoginEnds}, {"lease", s.LeaseEnds}, {"value", s.ValueEnds}}
	text, first := "-", time.Time{}
	for _, end := range ends {
		if !end.at.IsZero() && (first.IsZero() || end.at.Before(first)) {
			text, first = end.of+" "+p.in(end.at), end.at
		}
	}
	return text
}

func (p printed) inFlight() {
	p.say("\n%s\n", p.paint.bold(fmt.Sprintf("Mounts in flight: %d", len(p.status.InFlight))))
	if len(p.status.InFlight) == 0 {
		return
	}
	rows := [][]string{{"POD", "CLASS", "FOR", "PHASE", "WAITS FOR"}}
	for _, m := range p.status.InFlight {
		phase, awaits := "rotation", m.Awaits
		if m.First {
			phase = "first"
		}
		if len(m.Stores) > 0 {
			awaits += " of " + strings.Join(m.Stores, ", ")
		}
		rows = append(rows, []string{podOf(m.PodStatus), shown(m.Class), p.ago(m.Began), phase, awaits})
	}
	printTable(p, rows)
}

func podOf(s node.PodStatus) string { return shown(s.Namespace + "/" + s.Pod) }

func (p printed) volumes() {
	count := map[string]int{}
	for _, v := range p.status.Volumes {
		count[v.State]++
	}
	p.say("\n%s\n", p.paint.bold(fmt.Sprintf("Volumes: %d fresh, %d stale, %d failing", count["fresh"], count["stale"], count["failing"])))
	listed := slices.DeleteFunc(slices.Clone(p.status.Volumes), func(v node.VolumeStatus) bool { return v.State == "fresh" && !p.everything })
	if len(listed) == 0 {
		return
	}
	rows := [][]string{{"POD", "CLASS", "STATE", "MOUNTED", "CHANGED", "FILES", "NEXT END"}}
	for _, v := range listed {
		rows = append(rows, []string{podOf(v.PodStatus), shown(v.Class), v.State, p.ago(v.Mounted), p.ago(v.Changed), strconv.Itoa(v.Files), p.in(v.Ends)})
	}
	printTable(p, rows)
	for _, v := range listed {
		switch {
		case v.State == "failing":
			p.why(p.paint.red(podOf(v.PodStatus)+" "+shown(v.Class)), fmt.Sprintf("for %s, %s: %s", p.ago(v.Since), v.Code, v.Error))
		case len(v.Stale) > 0:
			for _, store := range sortedKeys(v.Stale) {
				p.why(p.paint.yellow(podOf(v.PodStatus)+" "+shown(v.Class)), "the last known values of store "+store+": "+v.Stale[store])
			}
		}
	}
}

// why says the cause of something, in lines that fit.
func (p printed) why(of, cause string) {
	p.say("  %s\n%s%s\n", of, hanging, wrapped(strings.Join(strings.Fields(cause), " "), len(hanging), hanging))
}

func (p printed) memory() {
	if len(p.status.Memory) == 0 {
		return
	}
	p.say("\n%s\n", p.paint.bold("Memory of what was read, by namespace"))
	rows := [][]string{}
	for _, m := range p.status.Memory[:min(len(p.status.Memory), mostMemory)] {
		rows = append(rows, []string{shown(m.Namespace), fmt.Sprintf("%d KiB", (m.Bytes+1023)>>10)})
	}
	if more := len(p.status.Memory) - mostMemory; more > 0 {
		rows = append(rows, []string{fmt.Sprintf("and %d more", more)})
	}
	printTable(p, rows)
}
