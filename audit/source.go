package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
)

// Source is one file of a trail, or a stream of lines from elsewhere.
type Source struct {
	Name string
	// Open begins to read it; plain or compressed by gzip.
	Open func() (io.ReadCloser, error)
	// Once says that Open works once, as for standard input.
	Once bool
}

// Form is how lines hold their records.
type Form struct {
	// Field is the dotted name of the field with the record, where a collector has put each
	// line into an object of its own: a JSON object, or a text that holds one. Empty where a
	// line is the record. The lines of a container runtime are told by their form.
	Field string
	// Others says that there are lines without a record, such as those of the program's log.
	Others bool
}

const (
	// longest is more than a collector makes of a record.
	longest = 1 << 20
	// readSize is how much of a file is read at a time.
	readSize = 256 << 10
)

// found is a record of a file, or a line without one.
type found struct {
	line int    // the first of it is 1
	text []byte // canonical; it counts until the next one is read
	head head
	// half says that the line breaks off within a record.
	half bool
	// closed says that the line has its end, as no line has within which a process ends; a
	// collector closes each.
	closed bool
	err    error // why the line holds no record
}

// records calls each with what the lines of a file hold, until it returns false. Its error is
// about reading alone.
func (f Form) records(file Source, each func(found) bool) error {
	r, err := file.Open()
	if err != nil {
		return err
	}
	err = f.read(r, each)
	if err := errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("read %s: %w", file.Name, err)
	}
	return nil
}

func (f Form) read(r io.Reader, each func(found) bool) error {
	buffered, err := uncompressed(r)
	if err != nil {
		return err
	}
	lines, joined := lineReader{r: buffered}, joiner{}
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		text, first, whole := joined.add(line, lines.n)
		if whole && len(bytes.TrimSpace(text)) > 0 && !f.hold(text, first, func(one found) bool {
			one.closed = lines.closed && f.Field == "" && !joined.cri
			return each(one)
		}) {
			return nil
		}
	}
	for _, part := range joined.parts {
		if len(part.text) > 0 && !each(found{line: part.line, half: true}) {
			return nil
		}
	}
	return nil
}

// uncompressed tells a file by its first bytes, since rotation renames what is compressed.
func uncompressed(r io.Reader) (*bufio.Reader, error) {
	b := bufio.NewReaderSize(r, readSize)
	if magic, err := b.Peek(2); err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
		return b, nil //nolint:nilerr // an error comes back with the next read
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, fmt.Errorf("is no whole gzip file: %w", err)
	}
	return bufio.NewReaderSize(z, readSize), nil
}

// hold calls each with the record in a text, or with two: a process that ends within a record
// leaves half of it, and the next may go on in the same line.
func (f Form) hold(text []byte, line int, each func(found) bool) bool {
	text, err := f.unwrap(text)
	if err != nil {
		return each(found{line: line, err: err})
	}
	one := find(text)
	one.line = line
	if one.err == nil {
		return each(one)
	}
	const front = `{"at":"`
	if i := bytes.LastIndex(text, []byte(front)); i > 0 && bytes.HasPrefix(text, []byte(front)) {
		if second := find(text[i:]); second.err == nil && second.head.kind == KindBegin {
			second.line = line
			return each(found{line: line, half: true}) && each(second)
		}
	}
	return each(one)
}

// find is the record in a text, without a line.
func find(text []byte) found {
	if h, ok := scanHead(text); ok {
		return found{text: text, head: h, err: h.lacks()}
	}
	canonical, err := Canonical(text)
	if err != nil {
		return found{err: err, half: isHalf(text)}
	}
	h, ok := scanHead(canonical)
	if !ok {
		return found{err: errors.New("is no object, as a record is")}
	}
	return found{text: canonical, head: h, err: h.lacks()}
}

// lineReader reads lines of any length, and keeps longest of each.
type lineReader struct {
	r    *bufio.Reader
	n    int // number of the line
	long []byte
	// closed says that the line had its end.
	closed bool
}

// next is the next line, without its end; it counts until the next one is read.
func (l *lineReader) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if len(line) == 0 && err != nil {
		return nil, err
	}
	l.n++
	if l.closed = err == nil; l.closed || errors.Is(err, io.EOF) {
		return bytes.TrimSuffix(line, []byte("\n")), nil
	}
	l.long = l.long[:0]
	for errors.Is(err, bufio.ErrBufferFull) {
		l.long = append(l.long, line[:min(len(line), longest-len(l.long))]...)
		line, err = l.r.ReadSlice('\n')
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	l.closed = err == nil
	l.long = append(l.long, line[:min(len(line), longest-len(l.long))]...)
	return bytes.TrimSuffix(l.long, []byte("\n")), nil
}

// joiner joins the parts of a line that a container runtime has cut, as the Container Runtime
// Interface has it: "TIME stdout P text" for a part, and F for the last one.
type joiner struct {
	parts map[string]*part
	cri   bool // the last line was one of a container runtime
}

type part struct {
	line int
	text []byte
}

// add takes a line in. Whole says that there is a text, which began in line first.
func (j *joiner) add(line []byte, n int) (text []byte, first int, whole bool) {
	stream, partial, text, isCRI := cutCRI(line)
	if j.cri = isCRI; !isCRI {
		return line, n, true
	}
	before := j.parts[string(stream)]
	switch {
	case partial && before == nil:
		if j.parts == nil {
			j.parts = map[string]*part{}
		}
		before = &part{}
		j.parts[string(stream)] = before
	case !partial && (before == nil || len(before.text) == 0):
		return text, n, true
	}
	if len(before.text) == 0 {
		before.line = n
	}
	before.text = append(before.text, text[:min(len(text), longest-len(before.text))]...)
	if partial {
		return nil, 0, false
	}
	text = before.text
	before.text = before.text[:0]
	return text, before.line, true
}

// cutCRI cuts what the container runtime has put before a text.
func cutCRI(line []byte) (stream []byte, partial bool, text []byte, ok bool) {
	if len(line) == 0 || line[0] < '0' || line[0] > '9' {
		return nil, false, nil, false
	}
	_, rest, _ := bytes.Cut(line, []byte(" "))
	stream, rest, _ = bytes.Cut(rest, []byte(" "))
	tags, text, ok := bytes.Cut(rest, []byte(" "))
	if !ok || string(stream) != "stdout" && string(stream) != "stderr" {
		return nil, false, nil, false
	}
	tag, _, _ := bytes.Cut(tags, []byte(":"))
	if string(tag) != "P" && string(tag) != "F" {
		return nil, false, nil, false
	}
	return stream, string(tag) == "P", text, true
}
