package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/keymount/keymount/e2e/cluster"
)

// NginxImage is the name of the stand-in for nginx's own image.
const NginxImage = "docker.io/library/nginx:1.29"

// nginxConf is like that of nginx's own image: what is to be served is said in
// /etc/nginx/conf.d, and what nginx writes lies in /var/cache/nginx and /run.
const nginxConf = `user nginx;
worker_processes 1;
error_log /var/log/nginx/error.log notice;
pid /run/nginx.pid;
events { worker_connections 256; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /var/log/nginx/access.log;
    client_body_temp_path /var/cache/nginx/client_temp;
    proxy_temp_path /var/cache/nginx/proxy_temp;
    fastcgi_temp_path /var/cache/nginx/fastcgi_temp;
    uwsgi_temp_path /var/cache/nginx/uwsgi_temp;
    scgi_temp_path /var/cache/nginx/scgi_temp;
    include /etc/nginx/conf.d/*.conf;
}
`

const nginxDefault = `server {
    listen 80;
    location / { root /usr/share/nginx/html; }
}
`

// Nginx makes the image [NginxImage] out of Debian's nginx, with the libraries of
// this machine and, in place of a distribution, busybox. The packages are fetched
// once and not installed, so that no nginx starts here.
func Nginx(ctx context.Context, out string) error {
	unpacked, err := nginxPackages(ctx)
	if err != nil {
		return fmt.Errorf("make image %s: %w", NginxImage, err)
	}
	files, err := nginxFiles(ctx, unpacked)
	if err != nil {
		return fmt.Errorf("make image %s: %w", NginxImage, err)
	}
	return cluster.Image{
		Name:    NginxImage,
		Files:   files,
		Command: []string{"nginx", "-g", "daemon off;"},
		Env:     []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}.Write(out)
}

// nginxPackages is a folder of the user's cache with the packages unpacked.
func nginxPackages(ctx context.Context) (folder string, err error) {
	release, err := debianRelease()
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place for the packages: %w", err)
	}
	folder = filepath.Join(cache, "keymount-e2e", "nginx-"+release+"-"+runtime.GOARCH)
	if _, err := os.Stat(folder); err == nil {
		return folder, nil
	}
	if err := os.MkdirAll(filepath.Dir(folder), 0o750); err != nil {
		return "", fmt.Errorf("find a place for the packages: %w", err)
	}
	partial, err := os.MkdirTemp(filepath.Dir(folder), "nginx-")
	if err != nil {
		return "", fmt.Errorf("find a place for the packages: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(partial)) }()
	if err := fetch(ctx, partial, "nginx", "nginx-common"); err != nil {
		return "", err
	}
	// Somebody else may have been faster, and then has the same.
	if err := os.Rename(partial, folder); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("put the packages in their place: %w", err)
	}
	return folder, nil
}

// fetch unpacks packages of Debian into folder.
func fetch(ctx context.Context, folder string, packages ...string) error {
	//nolint:gosec // G204: apt-get, with arguments of this package
	download := exec.CommandContext(ctx, "apt-get", append([]string{"download", "-q"}, packages...)...)
	download.Dir = folder
	if _, err := run(download); err != nil {
		return fmt.Errorf("%w\nfetching Debian's packages takes Debian, its mirror, and 'apt-get update' once", err)
	}
	archives, err := filepath.Glob(filepath.Join(folder, "*.deb"))
	if err != nil {
		return fmt.Errorf("list the packages: %w", err)
	}
	for _, archive := range archives {
		if _, err := run(exec.CommandContext(ctx, "dpkg", "-x", archive, folder)); err != nil { //nolint:gosec // G204: just downloaded
			return err
		}
		if err := os.Remove(archive); err != nil {
			return fmt.Errorf("remove an unpacked package: %w", err)
		}
	}
	return nil
}

// debianRelease names the release, since a program of one needs its libraries.
func debianRelease() (string, error) {
	const file = "/etc/os-release"
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("find Debian's release: %w", err)
	}
	m := regexp.MustCompile(`(?m)^VERSION_CODENAME="?([a-z0-9.-]+)"?$`).FindSubmatch(text)
	if m == nil {
		return "", fmt.Errorf("find Debian's release: %s has no VERSION_CODENAME", file)
	}
	return string(m[1]), nil
}

func nginxFiles(ctx context.Context, unpacked string) ([]cluster.File, error) {
	binary := filepath.Join(unpacked, "usr/sbin/nginx")
	files, err := librariesOf(ctx, binary)
	if err != nil {
		return nil, err
	}
	busybox, err := cluster.Busybox(NginxImage)
	if err != nil {
		return nil, err
	}
	for _, file := range busybox.Files {
		if strings.HasPrefix(file.Path, "/bin/") {
			files = append(files, file)
		}
	}
	for _, name := range []string{"/usr/share/nginx/html/index.html", "/etc/nginx/mime.types"} {
		files = append(files, cluster.File{Path: name, Source: filepath.Join(unpacked, name)})
	}
	return append(files,
		cluster.File{Path: "/usr/sbin/nginx", Source: binary},
		cluster.File{Path: "/etc/nginx/nginx.conf", Content: []byte(nginxConf)},
		cluster.File{Path: "/etc/nginx/conf.d/default.conf", Content: []byte(nginxDefault)},
		cluster.File{Path: "/etc/passwd", Content: []byte("root:x:0:0:root:/root:/bin/sh\nnginx:x:101:101:nginx:/nonexistent:/bin/false\n")},
		cluster.File{Path: "/etc/group", Content: []byte("root:x:0:\nnginx:x:101:\n")},
		cluster.File{Path: "/var/log/nginx/access.log", Link: "/dev/stdout"},
		cluster.File{Path: "/var/log/nginx/error.log", Link: "/dev/stderr"},
		cluster.File{Path: "/var/cache/nginx", Mode: fs.ModeDir | 0o755},
		cluster.File{Path: "/run", Mode: fs.ModeDir | 0o755},
		cluster.File{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	), nil
}

// librariesOf asks the loader for the libraries of a program, itself included.
func librariesOf(ctx context.Context, binary string) ([]cluster.File, error) {
	printed, err := run(exec.CommandContext(ctx, "ldd", binary)) //nolint:gosec // G204: a program of Debian's
	if err != nil {
		return nil, err
	}
	var files []cluster.File
	lines := bufio.NewScanner(strings.NewReader(printed))
	for lines.Scan() {
		// "libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x...)", "/lib64/ld-linux-x86-64.so.2 (0x...)"
		words := strings.Fields(strings.ReplaceAll(lines.Text(), "=>", ""))
		if strings.Contains(lines.Text(), "not found") {
			return nil, fmt.Errorf("%s is not there; on Debian, 'apt-cache depends nginx' names the package that has it", words[0])
		}
		if place := slices.IndexFunc(words, filepath.IsAbs); place >= 0 {
			files = append(files, cluster.File{Path: words[place], Source: words[place]})
		}
	}
	return files, nil
}
