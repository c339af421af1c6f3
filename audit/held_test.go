package audit_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keymount/keymount/audit"
)

// event is a record of one volume at a time.
type event struct {
	at       string
	path     string // that a mount grants
	fails    bool
	count    int64
	first    string
	withdraw int64
}

func (e event) record() audit.Record {
	switch {
	case e.count > 0:
		return audit.Record{At: e.at, Kind: audit.KindCount, Counts: []audit.Count{{Class: "class", Count: e.count, First: e.first, Last: e.at, Pod: audit.Pod{UID: "shopapi"}}}}
	case e.withdraw > 0:
		return audit.Record{At: e.at, Kind: audit.KindWithdrawn, Withdrawn: &audit.Withdrawn{Seq: e.withdraw}}
	}
	r := mountOf("shop", "api", audit.Secret{Store: "prod", Path: e.path, Outcome: audit.Granted, Scope: audit.ScopePath})
	r.At = e.at
	if e.fails {
		r.Outcome = audit.NotFound
	}
	return r
}

// A count belongs to what the volume held when it began, also where a mount of something else
// is written before it; one that was withdrawn, or failed, leaves the volume as it was.
func TestCountsOfAVolume(t *testing.T) {
	for name, test := range map[string]struct {
		events []event
		// want is of each path how often it was read, how often delivered, and when last.
		want map[string]string
	}{
		"written before the next mount": {
			[]event{{at: "01", path: "a"}, {at: "04", count: 5, first: "02"}, {at: "05", path: "b"}, {at: "08", count: 3, first: "06"}},
			map[string]string{"a": "6 6 04", "b": "4 4 08"},
		},
		"written behind the next mount": {
			[]event{{at: "01", path: "a"}, {at: "05", path: "b"}, {at: "09", count: 5, first: "02"}},
			map[string]string{"a": "6 6 09", "b": "1 1 05"},
		},
		"written behind the next two": {
			[]event{{at: "01", path: "a"}, {at: "05", path: "b"}, {at: "07", path: "c"}, {at: "09", count: 5, first: "06"}},
			map[string]string{"a": "1 1 01", "b": "6 6 09", "c": "1 1 07"},
		},
		"of what is not in the files": {
			[]event{{at: "05", path: "b"}, {at: "09", count: 5, first: "02"}, {at: "19", count: 2, first: "12"}},
			map[string]string{"b": "3 3 19"},
		},
		"behind a withdrawn mount": {
			[]event{{at: "01", path: "a"}, {at: "05", path: "b"}, {at: "06", withdraw: 2}, {at: "09", count: 5, first: "07"}},
			map[string]string{"a": "6 6 09", "b": "1 0 05"},
		},
		"behind a failed mount": {
			[]event{{at: "01", path: "a"}, {at: "05", path: "b", fails: true}, {at: "09", count: 5, first: "07"}},
			map[string]string{"a": "6 6 09", "b": "1 0 05"},
		},
	} {
		records := make([]audit.Record, len(test.events))
		for i, e := range test.events {
			records[i] = e.record()
		}
		uses, read := map[string]string{}, map[string]string{}
		for _, use := range usesOf(t, records...) {
			uses[use.Path] = fmt.Sprint(use.Times, use.Delivered, " ", use.Last)
		}
		everything, err := audit.ParsePattern("*")
		if err != nil {
			t.Fatal(err)
		}
		readers := audit.NewReaders(everything)
		walk(t, func(e audit.Entry) { readers.Add(e) }, source("f1", text(written(t, records...))))
		for _, r := range readers.Readers() {
			read[r.Path] = fmt.Sprint(r.Times, r.Times-r.Undelivered, " ", r.Last)
		}
		if diff := cmp.Diff(test.want, uses); diff != "" {
			t.Errorf("%s: uses (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(test.want, read); diff != "" {
			t.Errorf("%s: readers (-want +got):\n%s", name, diff)
		}
	}
}

// What is written behind a mount may take it back, in all its parts, and beyond what is read
// ahead nothing is.
func TestWalkReadsAhead(t *testing.T) {
	var many []audit.Secret
	for i := range 40 {
		many = append(many, audit.Secret{Store: "prod", Path: fmt.Sprintf("%01000d", i), Outcome: audit.Granted})
	}
	records := []audit.Record{mountOf("shop", "api"), mountOf("shop", "api", many...), mountOf("shop", "job")}
	for range 9000 {
		records = append(records, audit.Record{Kind: audit.KindConfig})
	}
	for _, seq := range []int64{2, 1} { // the first is behind the mount at once
		at := map[int64]int{1: len(records), 2: 3}[seq]
		records = append(records[:at:at], append([]audit.Record{{Kind: audit.KindWithdrawn, Withdrawn: &audit.Withdrawn{Seq: seq}}}, records[at:]...)...)
	}
	var back, parts, all int
	var takes []bool
	walk(t, func(e audit.Entry) {
		all++
		if e.Parts > 0 {
			parts++
		}
		if e.TakenBack {
			back++
		}
		if e.Kind == audit.KindWithdrawn {
			takes = append(takes, e.TakesBack != nil && e.TakesBack.Part == 1 && e.TakesBack.Seq == 2)
		}
	}, source("f1", text(written(t, records...))))
	if parts < 2 || back != parts || !cmp.Equal(takes, []bool{true, false}) || all != 9000+5+parts {
		t.Errorf("of %d records %d are parts, %d are taken back, by %v", all, parts, back, takes)
	}
}
