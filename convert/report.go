package convert

import (
	"fmt"
	"io"
	"strings"
)

// widest are the columns of a report.
const widest = 98

// Report writes the notes for a human: what has no counterpart first, then what is to be
// looked at, and at the end how much was converted.
func (r *Result) Report(w io.Writer) {
	lost, look := r.parted()
	section(w, "Without a counterpart:", lost)
	section(w, "To look at:", look)
	if r.Found == 0 {
		_, _ = fmt.Fprintln(w, "There is nothing to convert: see 'keymount convert --help' for what is.")
	}
	_, _ = fmt.Fprintf(w, "objects: %d; classes: %d, stores: %d, pods: %d; without a counterpart: %d, to look at: %d\n",
		r.Found, len(r.Classes), r.stores(), len(r.Pods), len(lost), len(look))
}

func (r *Result) stores() int {
	if r.Rules == nil {
		return 0
	}
	return len(items(r.Rules, "stores"))
}

func (r *Result) parted() (lost, look []Note) {
	for _, n := range r.Notes {
		if n.Lost {
			lost = append(lost, n)
		} else {
			look = append(look, n)
		}
	}
	return lost, look
}

func section(w io.Writer, title string, notes []Note) {
	if len(notes) == 0 {
		return
	}
	_, _ = fmt.Fprintln(w, title)
	place := ""
	for _, n := range notes {
		if n.Place() != place {
			place = n.Place()
			_, _ = fmt.Fprintf(w, "  %s\n", place)
		}
		text := n.Text
		if n.Field != "" {
			text = n.Field + ": " + text
		}
		hanging(w, "    ", "      ", text)
		if n.Instead != "" {
			hanging(w, "      instead: ", "        ", n.Instead)
		}
	}
	_, _ = fmt.Fprintln(w)
}

// hanging writes a text in lines, the first with another indent.
func hanging(w io.Writer, first, others, text string) {
	indent := first
	for _, line := range Wrap(text, widest-max(len(first), len(others))) {
		_, _ = fmt.Fprintln(w, indent+line)
		indent = others
	}
	if strings.TrimSpace(text) == "" {
		_, _ = fmt.Fprintln(w, first)
	}
}
