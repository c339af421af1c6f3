package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

const cgroups = "/sys/fs/cgroup"

// hierarchies are the folders in which this machine keeps its cgroups: one for
// each controller (version 1, with or without the unified one beside them), or one
// for all (version 2).
func hierarchies() (folders []string, unified bool, err error) {
	if _, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers")); err == nil {
		return []string{cgroups}, true, nil
	}
	found, err := filepath.Glob(filepath.Join(cgroups, "*", "cgroup.procs"))
	if err != nil || len(found) == 0 {
		return nil, false, errors.Join(errors.New("no cgroups in "+cgroups), err)
	}
	for _, name := range found {
		folder := filepath.Dir(name)
		if info, err := os.Lstat(folder); err == nil && info.IsDir() { // "cpu" may be a link to "cpu,cpuacct"
			folders = append(folders, folder)
		}
	}
	return folders, false, nil
}

// makeCgroup makes a cgroup in every hierarchy. The kubelet wants its root to be
// there.
func makeCgroup(path string) error {
	folders, unified, err := hierarchies()
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if err := os.MkdirAll(filepath.Join(folder, path), 0o755); err != nil { //nolint:gosec // G301: as cgroups are
			return fmt.Errorf("make a cgroup: %w", err)
		}
		for _, name := range parents(path) {
			if unified {
				err = delegate(filepath.Join(folder, name))
			} else if filepath.Base(folder) == "cpuset" {
				err = inherit(folder, name)
			}
			if err != nil {
				return fmt.Errorf("set up a cgroup: %w", err)
			}
		}
	}
	return nil
}

// parents are "/", "/a" and "/a/b" of "/a/b".
func parents(path string) []string {
	all := []string{path}
	for path != "/" {
		path = filepath.Dir(path)
		all = append(all, path)
	}
	slices.Reverse(all)
	return all
}

// inherit gives a cgroup of version 1 the processors of its parent: it begins
// with none.
func inherit(hierarchy, path string) error {
	if path == "/" {
		return nil
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(hierarchy, filepath.Dir(path), name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(hierarchy, path, name), value, 0o600); err != nil { //nolint:gosec // G703: a path of ours
			return err
		}
	}
	return nil
}

// delegate lets the children of a cgroup of version 2 have every controller that
// the kubelet asks for.
func delegate(folder string) error {
	for _, controller := range []string{"cpu", "cpuset", "memory", "pids", "io", "hugetlb"} {
		err := os.WriteFile(filepath.Join(folder, "cgroup.subtree_control"), []byte("+"+controller), 0o600)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && controller != "hugetlb" && controller != "io" {
			return fmt.Errorf("hand %s on: %w", controller, err)
		}
	}
	return nil
}

// removeCgroups removes a cgroup and all below it from every hierarchy. It is an
// error while a process is in one.
func removeCgroups(path string) error {
	folders, _, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, folder := range folders {
		var found []string
		err := filepath.WalkDir(filepath.Join(folder, path), func(name string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && entry.IsDir() {
				found = append(found, name)
			}
			return err
		})
		errs = append(errs, err)
		for _, name := range slices.Backward(found) {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
