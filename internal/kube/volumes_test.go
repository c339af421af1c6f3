package kube_test

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"github.com/keymount/keymount/internal/kube"
)

var (
	aApp = mounted{"node-1", "shop", "a", "uid-a", "app"}
	aTLS = mounted{"node-1", "shop", "a", "uid-a", "tls"}
	bApp = mounted{"node-1", "shop", "b", "uid-b", "app"}
	away = mounted{"node-2", "shop", "c", "uid-c", "app"}
)

// Volumes of this node that go are told of, and when it was the last one of a pod.
func TestVolumesThatAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		foreign := aApp
		foreign.Namespace = "blog" // whoever wrote that
		s := newStatuses(aApp, aTLS, bApp, away, foreign)
		quiet(t, watched(t, s, func(o *told) {
			o.expect(t)
			s.remove(aApp)
			o.expect(t, of(aApp, false))
			s.remove(away)
			o.expect(t)
			s.remove(aTLS)
			o.expect(t, of(aTLS, true))
			s.put(aTLS)
			s.put(aTLS) // mounted again
			o.expect(t)
			s.remove(aTLS)
			o.expect(t, of(aTLS, true))
			if diff := cmp.Diff([]string{"list", "watch 100"}, s.take()); diff != "" {
				t.Errorf("requests (-want +got)\n%s", diff)
			}
		}))
	})
}

// A pod that comes back under its name has another volume, on this node or elsewhere.
func TestVolumesOfASuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next, moved := aApp, bApp
		next.UID, moved.UID, moved.Node = "uid-of-the-next-a", "uid-of-the-next-b", "node-2"
		s := newStatuses(aApp, bApp)
		quiet(t, watched(t, s, func(o *told) {
			s.put(next)
			o.expect(t, of(aApp, true))
			s.put(moved)
			o.expect(t, of(bApp, true))
			s.remove(moved)
			o.expect(t)
			s.remove(next)
			o.expect(t, of(next, true))
		}))
	})
}

// What no pod owns, or owns no more, is nobody's volume; what had an owner still goes
// with it.
func TestVolumesWithoutAPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stray, orphan := bApp, aApp
		stray.UID, orphan.UID = "", ""
		s := newStatuses(aApp, stray)
		quiet(t, watched(t, s, func(o *told) {
			s.put(orphan)
			s.remove(stray)
			o.expect(t)
			s.remove(orphan)
			o.expect(t, of(aApp, true))
		}))
	})
}

// A watch that ends goes on where it was, as often as it does: nothing is missed, nothing
// listed again, and nobody told.
func TestVolumesAfterAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStatuses(aApp, bApp)
		quiet(t, watched(t, s, func(o *told) {
			s.cut(`{"type":"DELETED","object":{"metadata":{"name":"b-sh`)
			s.remove(aApp)
			o.expect(t)
			<-time.After(2 * time.Second)
			o.expect(t, of(aApp, true))
			s.bookmark("node-1")
			synctest.Wait()
			s.cut("")
			<-time.After(4 * time.Second)
			if diff := cmp.Diff([]string{"list", "watch 100", "watch 100", "watch 111"}, s.take()); diff != "" {
				t.Errorf("requests (-want +got)\n%s", diff)
			}
		}))
	})
}

// An API server that forgot the changes is asked for all there is, which has to be as new
// as what is known; what is missing has gone.
func TestVolumesAfterALongGap(t *testing.T) {
	for name, end := range map[string]string{
		"when it asks":   "",
		"in the middle":  expired(),
		"in older words": `{"type":"ERROR","object":` + failure(http.StatusGone, "Gone", "too old resource version") + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				next := bApp
				next.UID = "uid-of-the-next-b"
				s := newStatuses(aApp, aTLS, bApp)
				quiet(t, watched(t, s, func(o *told) {
					s.take()
					s.cut(end)
					s.remove(aApp)
					s.put(next)
					s.bookmark("node-1")
					s.forget()
					<-time.After(5 * time.Second)
					o.mu.Lock()
					slices.SortFunc(o.all, func(a, b gone) int { return strings.Compare(a.PodUID, b.PodUID) })
					o.mu.Unlock()
					o.expect(t, of(aApp, false), of(bApp, true))
					want := []string{"list NotOlderThan 100", "watch 112"}
					if end == "" {
						want = append([]string{"watch 100"}, want...)
					}
					if diff := cmp.Diff(want, s.take()); diff != "" {
						t.Errorf("requests (-want +got)\n%s", diff)
					}
					s.remove(aTLS)
					o.expect(t, of(aTLS, true))
				}))
			})
		})
	}
}

// A list as new as what is known may not be had any more, such as from a cluster that was
// restored: then it is the newest.
func TestVolumesOfAClusterThatWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStatuses(aApp, bApp)
		log := watched(t, s, func(o *told) {
			s.take()
			s.forget()
			s.remove(aApp)
			o.expect(t, of(aApp, true))
			s.cut(expired())
			s.answer(func(*http.Request) (*http.Response, error) {
				s.answer(nil) // the next one succeeds
				answer := refused(http.StatusGatewayTimeout, "Timeout", "Too large resource version: 101, current: 7")
				answer.Header.Set("Retry-After", "1")
				return answer, nil
			})
			<-time.After(10 * time.Second)
			o.expect(t)
			if diff := cmp.Diff([]string{"list NotOlderThan 101", "list", "watch 101"}, s.take()); diff != "" {
				t.Errorf("requests (-want +got)\n%s", diff)
			}
		})
		if len(log) != 2 || !strings.Contains(log[0], "Too large resource version") || !strings.Contains(log[1], "watched again") {
			t.Errorf("the log is %q", log)
		}
	})
}

// expired is what ends a watch whose changes are forgotten.
func expired() string {
	return `{"type":"ERROR","object":` + failure(http.StatusGone, "Expired", "too old resource version") + `}`
}

// While the API server is away it is asked at least once a minute, and not much more
// often; the log has a line when that begins and one when it is over. Who has left
// meanwhile is told of then. It is the same the next time, and short gaps stay short.
func TestVolumesDuringAnOutage(t *testing.T) {
	for name, outage := range map[string]func(*http.Request) (*http.Response, error){
		"connection refused": func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") },
		"no answer in time": func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		},
		"etcd is away": func(*http.Request) (*http.Response, error) {
			return refused(http.StatusInternalServerError, "InternalError", "etcd is away"), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStatuses(aApp, aTLS, bApp)
				log := watched(t, s, func(o *told) {
					for _, leaves := range []gone{of(aApp, false), of(aTLS, true)} {
						s.take()
						s.answer(outage)
						s.cut("")
						s.remove(mounted{"node-1", "shop", "a", "uid-a", leaves.Class})
						<-time.After(10 * time.Minute)
						o.expect(t)
						if asked := len(s.take()); asked < 9 || asked > 50 {
							t.Errorf("it was asked %d times in 10 minutes", asked)
						}
						s.answer(nil)
						<-time.After(2 * time.Minute)
						o.expect(t, leaves)
					}
					s.cut("")
					s.remove(bApp)
					<-time.After(2 * time.Second)
					o.expect(t, of(bApp, true))
				})
				for i, line := range log {
					want := []string{`level=WARN msg="volumes are not watched: `, `level=INFO msg="volumes are watched again"`}[i%2]
					if len(log) != 4 || !strings.HasPrefix(line, want) || (i%2 == 0 && !strings.Contains(line, name)) {
						t.Errorf("line %d of %d: %s", i, len(log), line)
					}
				}
			})
		})
	}
}

// Without the right the log says which one is missing, and who gives it; when it is given
// the watch begins.
func TestVolumesWithoutTheRight(t *testing.T) {
	for _, verb := range []string{"list", "watch"} {
		synctest.Test(t, func(t *testing.T) {
			s := newStatuses(aApp)
			message := `secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io is forbidden: User "system:serviceaccount:keymount:keymount" cannot ` +
				verb + ` resource "secretproviderclasspodstatuses" in API group "secrets-store.csi.x-k8s.io" at the cluster scope`
			s.answer(func(r *http.Request) (*http.Response, error) {
				if (verb == "watch") != r.URL.Query().Has("watch") {
					return s.list("node-1"), nil
				}
				return refused(http.StatusForbidden, "Forbidden", message), nil
			})
			log := watched(t, s, func(o *told) {
				<-time.After(10 * time.Minute)
				s.answer(nil)
				<-time.After(time.Minute)
				s.remove(aApp)
				o.expect(t, of(aApp, true))
			})
			want := []string{
				`level=WARN msg="volumes are not watched: credentials of pods that go are given back later, or expire" error="` + verb +
					` the driver's SecretProviderClassPodStatus: ` + strings.ReplaceAll(message, `"`, `\"`) +
					`; the chart grants it with watchVolumes.enabled"`,
				`level=INFO msg="volumes are watched again"`,
			}
			if diff := cmp.Diff(want, log); diff != "" {
				t.Errorf("log (-want +got)\n%s", diff)
			}
		})
	}
}

// Watches that end at once are begun anew in peace, and one that never ends is given up.
func TestVolumesPace(t *testing.T) {
	for name, c := range map[string]struct {
		answer      func(*http.Request) (*http.Response, error)
		least, most int
	}{
		"ends at once": {func(*http.Request) (*http.Response, error) { return respond(http.StatusOK, http.NoBody), nil }, 60, 200},
		"never ends":   {nil, 5, 13},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStatuses(aApp)
				quiet(t, watched(t, s, func(*told) {
					s.take()
					s.answer(c.answer)
					s.cut("")
					<-time.After(time.Hour)
					if asked := len(s.take()); asked < c.least || asked > c.most {
						t.Errorf("%d requests in an hour, want %d to %d", asked, c.least, c.most)
					}
				}))
			})
		})
	}
}

// What the API server says counts only where it can be read, and fits into memory: until
// then nobody has left.
func TestVolumesThatCannotBeRead(t *testing.T) {
	for name, c := range map[string]struct{ change, list, says string }{
		"a list that is cut off":  {expired(), `{"items":[`, "read at most 16777216 bytes: unexpected EOF"},
		"a list that is too long": {expired(), `{"items":[]` + strings.Repeat(" ", 16<<20) + `}`, "read at most 16777216 bytes: unexpected EOF"},
		"an odd list":             {expired(), `{"items":[{"metadata":{"name":7}}]}`, "read at most 16777216 bytes: json: cannot unmarshal number"},
		"an odd change":           {`{"type":"MODIFIED","object":{"metadata":{"name":7}}}`, `{`, "watch the driver's SecretProviderClassPodStatus: read a change: json: "},
		"an odd error":            {`{"type":"ERROR","object":7}`, `{`, "watch the driver's SecretProviderClassPodStatus: read an error: json: "},
		"another error": {
			`{"type":"ERROR","object":` + failure(http.StatusInternalServerError, "InternalError", "a bug") + `}`, `{`,
			"watch the driver's SecretProviderClassPodStatus: a bug",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStatuses(aApp)
				log := watched(t, s, func(o *told) {
					s.take()
					s.answer(func(*http.Request) (*http.Response, error) {
						return respond(http.StatusOK, io.NopCloser(strings.NewReader(c.list))), nil
					})
					s.cut(c.change)
					<-time.After(2 * time.Second)
					o.expect(t)
					if asked := s.take(); asked[0] != "list NotOlderThan 100" {
						t.Errorf("asked %q", asked)
					}
					s.answer(nil)
					<-time.After(time.Minute)
					s.remove(aApp)
					o.expect(t, of(aApp, true))
				})
				if len(log) != 2 || !strings.Contains(log[0], c.says) || !strings.Contains(log[1], "watched again") {
					t.Errorf("the log is %.500q", log)
				}
			})
		})
	}
}

// What is remembered is bounded by the list, and then by a number; what is beyond leaves
// unnoticed.
func TestVolumesAreBounded(t *testing.T) {
	const bound = 4096
	synctest.Test(t, func(t *testing.T) {
		pod := func(n int) mounted {
			return mounted{"node-1", "shop", strconv.Itoa(n), strconv.Itoa(n), "app"}
		}
		s := newStatuses()
		quiet(t, watched(t, s, func(o *told) {
			for n := range bound + 1 {
				s.put(pod(n))
			}
			synctest.Wait()
			s.remove(pod(bound))
			o.expect(t)
			s.remove(pod(bound - 1))
			o.expect(t, of(pod(bound-1), true))
		}))
	})
}

func TestVolumesNeedANode(t *testing.T) {
	const want = "watchVolumes: which node is this? name it with --node-name or $NODE_NAME"
	if _, err := kube.VolumesAt(&rest.Config{}, "", nil); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}
