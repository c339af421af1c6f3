package pods_test

import "testing"

func (s *suite) testExamples(t *testing.T) { t.Parallel() }
