package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	"github.com/keymount/keymount/config"
	"github.com/keymount/keymount/manifest"
	"github.com/keymount/keymount/provider/providertest"
	"github.com/keymount/keymount/store/all"
	"github.com/keymount/keymount/trial"
)

// republish is the interval of Mount calls of a kept demo; the kubelet's is a minute.
const republish = time.Second

// kept is what a kept demo knows of its files.
type kept struct {
	class, config editedFile
	picked        trial.Picked
	files         []demoFile
	failure       string // of the last mount; empty after a good one
	told          bool   // the failure, with the class of now
}

// editedFile is a file with the content that was looked at last.
type editedFile struct {
	path string
	text []byte
}

// changed reads the file, and tells whether it differs from the last time.
func (f *editedFile) changed() bool {
	text, err := os.ReadFile(f.path)
	if err != nil || bytes.Equal(text, f.text) { // an editor may be putting another in its place
		return false
	}
	f.text = text
	return true
}

// differs tells that changed would be true.
func (f *editedFile) differs() bool {
	text, err := os.ReadFile(f.path)
	return err == nil && !bytes.Equal(text, f.text)
}

// untilEdited is a context that ends with the next edit: a mount may wait for a store that is
// not there for as long as its deadline. cancel tells whether there was one.
func (k *kept) untilEdited(ctx context.Context) (during context.Context, cancel func() bool) {
	during, stop := context.WithCancel(ctx)
	edited := make(chan bool, 1)
	go func() {
		ticker := time.NewTicker(republish)
		defer ticker.Stop()
		for {
			select {
			case <-during.Done():
				edited <- false
				return
			case <-ticker.C:
				if k.class.differs() || k.config.differs() {
					stop()
					edited <- true
					return
				}
			}
		}
	}()
	return during, func() bool { stop(); return <-edited }
}

// keep plays the kubelet until ctrl-C: it publishes the volume again and again, with class
// and keymount.yaml as they are then.
func (s *scene) keep(ctx context.Context) error {
	k := &kept{class: editedFile{path: filepath.Join(s.folder, className)}, config: editedFile{path: filepath.Join(s.folder, configName)}, files: s.result.After}
	k.config.changed()
	k.class.changed()
	var err error
	if k.picked, err = s.pickClass(k.class.text); err != nil {
		return err
	}
	s.invite()
	ticker := time.NewTicker(republish)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.again(ctx, k)
			if s.out.err != nil {
				return s.out.err
			}
		}
	}
}

// invite tells what can be done in another terminal.
func (s *scene) invite() {
	executable, err := os.Executable()
	if err != nil {
		executable = "keymount"
	}
	s.heading("6. It keeps running; the volume is published again every " + republish.String() + ". In another terminal:")
	s.say(`   alias keymount=%s
   cd %s
   cat volume/db/password
%s   vi class.yaml        # the next mount takes it, or tells its mistakes here
   vi keymount.yaml     # the node starts again with it, or tells its mistakes here
   keymount render class.yaml --as shop/api --config keymount.yaml
   keymount mount class.yaml --as shop/web --socket keymount.sock --issuer-key issuer.pem --to web

   ctrl-C ends the demo and removes the folder.

`, shellQuoted(executable), shellQuoted(s.folder), s.store.hint)
}

// again publishes once more and tells the changes or the failure.
func (s *scene) again(ctx context.Context, k *kept) {
	if k.config.changed() {
		s.takeConfig(ctx, k)
	}
	if k.class.changed() {
		s.takeClass(k)
	}
	during, cancel := k.untilEdited(ctx)
	versions, err := s.publish(during, k.picked)
	if edited := cancel(); edited || ctx.Err() != nil {
		return
	}
	var files []demoFile
	if err == nil {
		files, err = s.look(versions, k.files)
	}
	if err != nil {
		if text := status.Convert(err).Message(); text != k.failure || !k.told {
			k.failure, k.told = text, true
			s.tell("%s", s.style.red(text))
		}
		return
	}
	if k.failure != "" {
		k.failure = ""
		s.tell("mounted again")
	}
	s.tellFiles(k.files, files)
	k.files = files
}

// tell says something with the time.
func (s *scene) tell(format string, args ...any) {
	const margin = "             " // below the time
	lines := strings.Split(fmt.Sprintf(format, args...), "\n")
	for i, line := range lines {
		lines[i] = wrapped(line, len(margin), margin+hanging)
	}
	s.say("   %s  %s\n", time.Now().Format(time.TimeOnly), strings.Join(lines, "\n"+margin))
}

// takeConfig starts the node with the keymount.yaml of now.
func (s *scene) takeConfig(ctx context.Context, k *kept) {
	c, err := config.Load(k.config.path, all.All())
	if err == nil {
		err = s.restart(ctx, c)
	}
	if err != nil {
		s.tell("keymount.yaml changed, and the one before stays in force:\n%s", s.style.red(mistakesIn(err)))
		return
	}
	s.tell("keymount.yaml %s: the node has started again with it", s.style.green("changed"))
}

// mistakesIn are the mistakes of keymount.yaml, without the folder that all of them are in.
func mistakesIn(err error) string {
	mistakes := config.Mistakes(err)
	if len(mistakes) == 0 {
		return err.Error()
	}
	lines := make([]string, len(mistakes))
	for i, m := range mistakes {
		m.File = configName
		lines[i] = m.Error()
	}
	return strings.Join(lines, "\n")
}

// takeClass has the next mounts use the class.yaml of now.
func (s *scene) takeClass(k *kept) {
	picked, err := s.pickClass(k.class.text)
	if err != nil {
		s.tell("class.yaml changed, and the class before stays:\n%s", s.style.red(err.Error()))
		return
	}
	k.picked, k.told = picked, false
	s.tell("class.yaml %s", s.style.green("changed"))
}

// pickClass reads the class of the demo's pod.
func (s *scene) pickClass(text []byte) (trial.Picked, error) {
	file := manifest.Parse(className, text)
	return trial.Pick([]*manifest.File{file}, trial.Choice{As: trial.Account{Namespace: s.pod.Namespace, Name: s.pod.ServiceAccount}})
}

// publish mounts a class for the demo's pod.
func (s *scene) publish(ctx context.Context, p trial.Picked) (map[string]string, error) {
	var audiences []string
	for _, of := range s.node.config.Stores {
		audiences = append(audiences, of.Settings.Audience())
	}
	tokens, err := tokensOf(s.issuer, s.pod, audiences)
	if err != nil {
		return nil, err
	}
	socket := p.Class.Socket(s.node.config)
	if socket == "" {
		return nil, fmt.Errorf("the class has provider: %s, and sockets of keymount.yaml has no %[1]s.sock", p.Class.Provider)
	}
	driver, err := dialDriver(ctx, socket)
	if err != nil {
		return nil, err
	}
	defer func() { _ = driver.Close() }()
	return driver.Mount(ctx, providertest.Volume{Pod: s.pod, Class: p.Class.Name, Parameters: p.Class.Parameters, Tokens: tokens}, s.volume)
}

// tellFiles tells which files came, changed and went.
func (s *scene) tellFiles(before, after []demoFile) {
	in := func(files []demoFile, f demoFile) bool {
		return slices.ContainsFunc(files, func(other demoFile) bool { return other.Path == f.Path })
	}
	for _, f := range after {
		switch {
		case !in(before, f):
			s.tell("%s is new, version %s", f.Path, short(f.Version))
		case f.Changed:
			s.tell("%s %s, version %s", f.Path, s.style.green("changed"), short(f.Version))
		}
	}
	for _, f := range before {
		if !in(after, f) {
			s.tell("%s is gone", f.Path)
		}
	}
}
