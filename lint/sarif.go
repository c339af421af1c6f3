package lint

import (
	"net/url"
	"path/filepath"
	"strings"
)

// The parts of SARIF 2.1.0 that findings have, see
// https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html.
type (
	// Log is a SARIF file.
	Log struct {
		Schema  string `json:"$schema"`
		Version string `json:"version"`
		Runs    []Run  `json:"runs"`
	}
	// Run is that of one program.
	Run struct {
		Tool       Tool       `json:"tool"`
		ColumnKind string     `json:"columnKind"`
		Results    []Reported `json:"results"`
	}
	// Tool is the program.
	Tool struct {
		Driver Driver `json:"driver"`
	}
	// Driver has its rules.
	Driver struct {
		Name    string     `json:"name"`
		Version string     `json:"version,omitempty"`
		Rules   []RuleInfo `json:"rules"`
	}
	// RuleInfo is a rule.
	RuleInfo struct {
		ID    string  `json:"id"`
		Short Message `json:"shortDescription"`
		Help  Message `json:"help"`
	}
	// Message is a text.
	Message struct {
		Text string `json:"text"`
	}
	// Reported is a finding.
	Reported struct {
		RuleID    string     `json:"ruleId"`
		RuleIndex int        `json:"ruleIndex"`
		Level     Severity   `json:"level"`
		Message   Message    `json:"message"`
		Locations []Location `json:"locations"`
		Fixes     []Change   `json:"fixes,omitempty"`
	}
	// Location is a place in a file.
	Location struct {
		Physical Physical `json:"physicalLocation"`
	}
	// Physical is a place in a file.
	Physical struct {
		Artifact Artifact `json:"artifactLocation"`
		Region   *Region  `json:"region,omitempty"`
	}
	// Artifact is a file.
	Artifact struct {
		URI string `json:"uri"`
	}
	// Region is a part of a file.
	Region struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn,omitempty"`
		EndColumn   int `json:"endColumn,omitempty"`
	}
	// Change is a fix.
	Change struct {
		Description Message  `json:"description"`
		Changes     []InFile `json:"artifactChanges"`
	}
	// InFile are the changes of a file.
	InFile struct {
		Artifact     Artifact      `json:"artifactLocation"`
		Replacements []Replacement `json:"replacements"`
	}
	// Replacement is an [Edit].
	Replacement struct {
		Deleted  Region  `json:"deletedRegion"`
		Inserted Message `json:"insertedContent"`
	}
)

// SARIF has the findings for services that show them beside the code. Paths are as they were
// given, below folder where they are absolute.
func SARIF(findings []Finding, version, folder string) Log {
	driver := Driver{Name: "keymount", Version: version, Rules: []RuleInfo{}}
	index := map[string]int{}
	for i, r := range Rules() {
		index[r.ID] = i
		driver.Rules = append(driver.Rules, RuleInfo{r.ID, Message{r.Meaning + "."}, Message{r.Cure + "."}})
	}
	results := []Reported{}
	for _, f := range findings {
		results = append(results, f.reported(index[f.Rule], folder))
	}
	return Log{"https://json.schemastore.org/sarif-2.1.0.json", "2.1.0", []Run{{Tool{driver}, "unicodeCodePoints", results}}}
}

func (f Finding) reported(rule int, folder string) Reported {
	file := Artifact{uri(f.File, folder)}
	place := Physical{Artifact: file}
	if f.Line > 0 {
		place.Region = &Region{StartLine: f.Line, StartColumn: f.Column}
	}
	text := f.Text
	if f.Add != "" {
		text += "\nTo add to keymount.yaml:\n" + f.Add
	}
	r := Reported{f.Rule, rule, f.Severity, Message{text}, []Location{{place}}, nil}
	if f.Fix != nil {
		change := Replacement{Region{f.Fix.Line, f.Fix.Column, f.Fix.End}, Message{f.Fix.Text}}
		r.Fixes = []Change{{Message{"The fix of 'keymount lint --fix'."}, []InFile{{file, []Replacement{change}}}}}
	}
	return r
}

// uri is a file's name as a relative reference.
func uri(name, folder string) string {
	if filepath.IsAbs(name) {
		if relative, err := filepath.Rel(folder, name); err == nil {
			name = relative
		}
	}
	text := (&url.URL{Path: filepath.ToSlash(filepath.Clean(name))}).String()
	return strings.TrimPrefix(text, "./")
}
