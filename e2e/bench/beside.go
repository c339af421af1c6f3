package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// side is a program to measure.
type side struct {
	name        string   // in a report
	command     []string // with placeholders
	environment []string
	dialect     dialect
	own         bool // the keymount of these sources, which tells of itself
}

// ownSide is the keymount that was built as program.
func ownSide(program string, environment []string) side {
	return side{
		name: "keymount", command: []string{program, "serve", "--config", placeFolder + "/" + configFile, "--node-name", node},
		environment: environment, dialect: dialectKeymount, own: true,
	}
}

// The places of a command that are known when it starts.
const (
	placeSocket = "{socket}"
	placeFolder = "{folder}"
	placeVault  = "{vault}"
)

// besideHelp explains -beside.
const besideHelp = "a `PROGRAM` with its arguments: another provider that goes through the same storms as keymount, in turns with it, before the same Vault. " +
	"In the arguments " + placeSocket + " is the socket to listen on, " + placeFolder + " the folder of that, with a " + configFile +
	" for a keymount of another version, and " + placeVault + " the address to reach Vault at. The program has the environment of this command, and its calls have the pods' tokens. " +
	"There is no API server here: a program that needs one, as vault-csi-provider does for its HMAC key, has to find it by itself, at KUBERNETES_SERVICE_HOST for one"

// others is the program of -beside, if there is one.
func (o options) others() ([]side, error) {
	if o.Beside == "" {
		return nil, nil
	}
	command, err := commandOf(o.Beside)
	if err != nil {
		return nil, fmt.Errorf("-beside: %w", err)
	}
	if o.Turns < 1 {
		return nil, fmt.Errorf("-beside-turns is %d; it is 1 at least", o.Turns)
	}
	name := filepath.Base(command[0])
	if name == "keymount" {
		name = "other keymount"
	}
	return []side{{name: name, command: command, environment: o.environment(), dialect: o.Dialect}}, o.Dialect.check()
}

// environment is that of the programs: nothing, unless another one may want something.
func (o options) environment() []string {
	if o.Beside == "" {
		return []string{}
	}
	return os.Environ()
}

// commandOf reads a command with places.
func commandOf(text string) ([]string, error) {
	command := strings.Fields(text)
	if len(command) == 0 {
		return nil, errors.New("there is no program in it")
	}
	known := []string{placeSocket, placeFolder, placeVault}
	for _, place := range regexp.MustCompile(`\{[^{}]*\}`).FindAllString(text, -1) {
		if !slices.Contains(known, place) {
			return nil, fmt.Errorf("there is no %s; the places to fill in are %s", place, strings.Join(known, ", "))
		}
	}
	if !strings.Contains(text, placeSocket) && !strings.Contains(text, placeFolder) {
		return nil, fmt.Errorf("nothing says where the program has to listen; name %s or %s", placeSocket, placeFolder)
	}
	program, err := exec.LookPath(command[0])
	if err == nil {
		command[0], err = filepath.Abs(program)
	}
	if err != nil {
		return nil, fmt.Errorf("find the program: %w", err)
	}
	return command, nil
}

// commandAt is the command with all places filled in.
func (s side) commandAt(socket, vault string) []string {
	places := strings.NewReplacer(placeSocket, socket, placeFolder, filepath.Dir(socket), placeVault, vault)
	command := make([]string, len(s.command))
	for i, argument := range s.command {
		command[i] = places.Replace(argument)
	}
	return command
}

// taken is a scenario for each side, so many times. Every second time the other side is
// first, so that a machine that grows slower harms both.
func (s scenario) taken(times int, sides []side) (list []scenario) {
	for turn := range times {
		for i := range sides {
			one := s
			one.side, one.Turn = sides[(i+turn)%len(sides)], turn+1
			one.Program = one.side.name
			list = append(list, one)
		}
	}
	return list
}

// sideRows are the rows of a report on two programs.
func sideRows() []struct {
	row   string
	value func(scenario) float64
} {
	of := func(name string, value func(phase) float64) func(scenario) float64 {
		return func(s scenario) float64 { return value(s.phase(name)) }
	}
	p50, p95 := func(p phase) float64 { return p.P50 }, func(p phase) float64 { return p.P95 }
	cpu, peak := func(p phase) float64 { return p.CPU }, func(p phase) float64 { return p.Usage.PeakMiB }
	return []struct {
		row   string
		value func(scenario) float64
	}{
		{rowColdRate, of(phaseCold, phase.perSecond)},
		{rowColdP50, of(phaseCold, p50)},
		{rowColdP95, of(phaseCold, p95)},
		{rowColdCPU, of(phaseCold, cpu)},
		{rowColdRequests, of(phaseCold, phase.requests)},
		{rowWarmRate, of(phaseRepublish, phase.perSecond)},
		{rowWarmP50, of(phaseRepublish, p50)},
		{rowWarmP95, of(phaseRepublish, p95)},
		{rowWarmCPU, of(phaseRepublish, cpu)},
		{rowRequests, of(phaseRepublish, phase.requests)},
		{rowPeak, of(phaseRepublish, peak)},
	}
}

// sideBySide has both programs in each scenario, and how many times as much the first has
// of the second.
func (r report) sideBySide() [][]string {
	rows := [][]string{{""}}
	for _, row := range sideRows() {
		rows = append(rows, []string{row.row})
	}
	for _, name := range r.names() {
		first, second := r.lives(name, true), r.lives(name, false)
		rows[0] = append(rows[0], name+": "+first[0].Program, second[0].Program, "times")
		for i, row := range sideRows() {
			a, b := median(first, row.value), median(second, row.value)
			rows[1+i] = append(rows[1+i], rounded(a), rounded(b), ratio(a, b))
		}
	}
	return rows
}

// names are those of the scenarios, each once.
func (r report) names() (names []string) {
	for _, s := range r.Scenarios {
		if !slices.Contains(names, s.Name) {
			names = append(names, s.Name)
		}
	}
	return names
}

// lives are those of one program in a scenario.
func (r report) lives(name string, own bool) (lives []scenario) {
	for _, s := range r.Scenarios {
		if s.Name == name && s.side.own == own {
			lives = append(lives, s)
		}
	}
	return lives
}

func median(lives []scenario, value func(scenario) float64) float64 {
	values := make([]float64, len(lives))
	for i, s := range lives {
		values[i] = value(s)
	}
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// ratio is nothing where it would say nothing.
func ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}
