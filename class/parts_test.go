package class_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/keymount/keymount/class"
	"github.com/keymount/keymount/provider/providertest"
)

// A class of a size is refused before it is parsed when it has too many parts, in
// each way to write them and in each dialect.
func TestClassesOfManyParts(t *testing.T) {
	const size = 690_000 // and the class has some more
	for name, objects := range map[string]string{
		"a list":           "[" + strings.Repeat("a,", size/2) + "]",
		"lists":            "[" + strings.Repeat("[],", size/3) + "]",
		"maps":             "[" + strings.Repeat("{},", size/3) + "]",
		"a block of items": strings.Repeat("-\n", size/2),
		"a block of keys":  strings.Repeat("a:\n", size/3),
		"deep items":       strings.Repeat("- ", size/2),
		"keys in one line": "[{" + strings.Repeat("a:,", size/3) + "}]",
		"aliases":          "[" + strings.Repeat("*a,", size/3) + "]",
		"lines of a text":  "- a: |\n" + strings.Repeat("\n", size/2),
	} {
		for dialect, name := range map[class.Dialect]string{class.DialectKeymount: name, class.DialectVault: name + " of vault"} {
			t.Run(name, func(t *testing.T) {
				call := callParts{dialect: dialect, volume: providertest.Volume{
					Pod: pod(), Class: "app", Parameters: map[string]string{"objects": objects, "roleName": "shop"}, Tokens: map[string]string{audience: "x"},
				}}.call(t)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				_, err := class.Parse(call, map[string]class.Store{"default": {}})
				runtime.ReadMemStats(&after)
				if err == nil || !strings.Contains(err.Error(), "signs of YAML are more than one class may have (100000); make several classes of it") {
					t.Errorf("got %v", err)
				}
				if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 20 {
					t.Errorf("%d MiB were allocated", allocated)
				}
			})
		}
	}
}

// A class with as many parts as are taken stays within its memory.
func TestClassOfTheMostParts(t *testing.T) {
	call := callParts{volume: providertest.Volume{
		Pod: pod(), Class: "app", Parameters: map[string]string{"objects": "[" + strings.Repeat("[a],", 33_000) + "]"}, Tokens: map[string]string{audience: "x"},
	}}.call(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := class.Parse(call, map[string]class.Store{"default": {}})
	runtime.ReadMemStats(&after)
	if err == nil || strings.Contains(err.Error(), "signs of YAML") {
		t.Errorf("got %v", err)
	}
	if allocated := (after.TotalAlloc - before.TotalAlloc) >> 20; allocated > 50 {
		t.Errorf("%d MiB were allocated", allocated)
	} else {
		t.Logf("%d MiB were allocated", allocated)
	}
}
