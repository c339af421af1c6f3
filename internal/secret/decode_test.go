package secret_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/keymount/keymount/internal/secret"
)

// decodeAll is what [secret.Decode] promises to do.
func decodeAll(text []byte) (v any, err error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more")
	}
	return v, nil
}

// decodeTexts are JSON and almost JSON.
func decodeTexts() []string {
	return []string{
		"", " ", "null", " true ", "false", "nul", "nullx", "True", "0", "-0", "01", "-", "+1", "1.", ".5", "1.50", "1e5", "1E+05", "1e", "1e-", "1.10", "1 2",
		"123456789012345678901234567890", "1e999", "1-", "0x1", "NaN",
		`""`, `"`, `"a`, `"\`, `"\"`, `"a"b`, `"\"\\\/\b\f\n\r\t"`, `"\a"`, `"\u00e9"`, `"\u00E9\u20ac"`, `"\u00g0"`, `"\u12"`, `"\u+123"`, `"\u_123"`, `"\U0041"`,
		`"\ud83d\ude00"`, `"\ud83d"`, `"\ude00\ud83d"`, `"\ud83dx"`, `"\ud83d\u0041"`, `"\ud83d\n"`, `"\ud83d\ud83d\ude00"`, `"\ud83d\ude0"`, `"\ud83d\x"`, `"\u0000"`,
		"\"\xff\"", "\"a\xe2\x82b\xf0\x9f\"", "\"\xe2\x82\\n\xac\"", "\"\xed\xa0\x80\"", "\"a\nb\"", "\"\x7f\"", "\"\x00\"", "\"\xc3\xa9\u2028\"",
		"[]", "[ ]", "[1]", "[1,]", "[,1]", "[1 2]", "[1,2", "]", "[[],[[]]]", "[null, true ,\t\"a\"\r\n]", "[1]]",
		"{}", "{ }", `{"a":1}`, `{"a":1,}`, `{"a"}`, `{"a":}`, `{"a" 1}`, `{a:1}`, `{1:2}`, `{"a":1 "b":2}`, `{"a":1`, `{"a":{"b":[{"c":null}]}}`, "{\"a\" : 1 ,\n \"b\" : 2}",
		`{"a":1,"a":2}`, `{"a":{"b":1},"a":{"c":2}}`, `{"a":1,"\u0061":2}`, `{"":""}`, "\ufeff{}", "{}\x00", "/**/{}", `'a'`,
		strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000), strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001), strings.Repeat(`{"a":`, 10_001), strings.Repeat("[", 100_000),
	}
}

// Every text has the value that encoding/json gives it, or none, and that value can be
// written and read again.
func TestDecode(t *testing.T) {
	for _, text := range decodeTexts() {
		checkDecode(t, []byte(text))
	}
}

func checkDecode(t *testing.T, text []byte) {
	t.Helper()
	short := text[:min(len(text), 100)]
	got, err := secret.Decode(text, "name a b")
	want, wrong := decodeAll(text)
	if (err == nil) != (wrong == nil) {
		t.Fatalf("%q: got %v, want %v", short, err, wrong)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q: got %#v, want %#v", short, got, want)
	}
	if err != nil {
		return
	}
	if again, err := secret.Decode(secret.AppendJSON(nil, got), ""); err != nil || !reflect.DeepEqual(again, got) {
		t.Errorf("%q: written and read again it is %#v, %v", short, again, err)
	}
}

// No error and no value holds a part of the text.
func TestDecodeKeepsNothing(t *testing.T) {
	if _, err := secret.Decode([]byte(`{"`+canary+`":`+canary), ""); err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("got %v", err)
	}
	text := []byte(`{"name":["value","\n` + canary + `",1.5]}`)
	v, err := secret.Decode(text, "")
	if err != nil {
		t.Fatal(err)
	}
	clear(text)
	if want := map[string]any{"name": []any{"value", "\n" + canary, json.Number("1.5")}}; !reflect.DeepEqual(v, want) {
		t.Errorf("got %v, want %v", v, want)
	}
}

func FuzzDecode(f *testing.F) {
	const short = 100 // the others would be mutated for most of the time
	for _, text := range decodeTexts() {
		if len(text) <= short {
			f.Add([]byte(text))
		}
	}
	f.Fuzz(checkDecode)
}
