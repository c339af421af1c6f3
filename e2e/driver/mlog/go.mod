// Takes the place of monis.app/mlog for the driver's build: see mlog.go.
module monis.app/mlog

go 1.26.0

require k8s.io/klog/v2 v2.140.0

require github.com/go-logr/logr v1.4.3 // indirect
